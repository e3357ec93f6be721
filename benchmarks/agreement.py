"""Compare the results of fast and bf16 inference with exact inference, on generated images, for every architecture.

    python benchmarks/agreement.py
    python benchmarks/agreement.py --models fcos --images 40 --modes fast
    python benchmarks/agreement.py --checkpoints mask_rcnn_c4=runs/learn/mask_rcnn_c4

The models have random weights, residual branches scaled down to the size of trained ones, batch norm statistics of the
images, FCOS boxes of several strides, and classifiers scaled so that scores spread as those of a trained model do. A
detection of the exact model is compared with the detection of its class with the largest IoU, or of nearly equal ones,
the one with the closest score. Near-ties do not count: detections whose score differs from the next one by less than
1e-5. The exact model is also compared with itself in float64, which shows how far rounding moves its own results.

``--checkpoints`` compares trained models instead, such as the runs of ``learn_shapes.py --folder``, on new images of the
size that they were trained with. Exits with 1 if a mode exceeds its bounds. Prints a table and writes it to
``benchmarks/results/``.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import datetime
import platform
import shlex
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from machine import device_name
from torch import Tensor, nn

import hydet
import hydet.conf
from hydet.data import ShapesDataset
from hydet.modeling import (
    FCOS,
    RPN,
    DenseDetector,
    GeneralizedRCNN,
    MetaArchitecture,
    optimize,
)
from hydet.runs.benchmark_inputs import calibrate, damp_residuals
from hydet.runs.open_checkpoint import open_checkpoint
from hydet.structures import Boxes, Instances, ModelInput, pairwise_iou, pairwise_iou_rotated

RESULTS = Path(__file__).parent / "results"
SIZE = (256, 320)
NUM_PROPOSALS = 200  # per image of this size; the 1000 of the configs take several times as long
NEAR_TIE = 1e-5  # difference of neighboring scores
MATCH_IOU = 0.9  # of the same detection; another one of the same object has less
SCORE_STD = 1.5  # of the logits of classifiers
FCOS_REACH = 4.0  # strides from the center of a box to its sides, the least that training assigns to a level
FAST_PIXELS, FAST_SCORE, FAST_LABELS = 1e-3, 1e-4, 1e-3
FLOAT64 = "exact, float64"
FLOAT64_IMAGES = 4  # torch's float64 convolutions are slow
BF16_BOUNDS = (0.005, 0.02)  # of the longer side, of the score; for 95 of 100 detections
# C4 and DC5 see all objects in one map, behind more layers in bfloat16 than the levels of a pyramid.
BF16_BOUNDS_OF_ONE_MAP = (0.02, 0.06)
BF16_LABELS = 0.03  # part of the pixels of an image with another semantic label
CLASSIFIERS = ("cls_score", "objectness_logits")


def architectures() -> list[str]:
    """Return the options of ``conf/model`` that predict from an image alone."""
    folder = Path(hydet.conf.__path__[0]) / "model"
    # mmdet has models of its own, and fast_rcnn_fpn needs proposals; its heads are those of faster_rcnn_fpn.
    return sorted(p.stem for p in folder.glob("*.yaml") if p.stem not in ("mmdet", "fast_rcnn_fpn"))


@dataclass
class Differences:
    """Differences between two models over all images."""

    detections: int = 0  # of the exact model
    near_ties: int = 0
    unmatched: int = 0  # neither near-ties nor matched in the other result
    pixels: list[float] = field(default_factory=list)  # largest box coordinate, per detection
    sides: list[float] = field(default_factory=list)  # the same, relative to the longer side of the box
    scores: list[float] = field(default_factory=list)
    labels: list[float] = field(default_factory=list)  # part of pixels with another semantic label, per image

    def add(self, other: Instances, exact: Instances) -> None:
        """Compare the results of an image."""
        scores, boxes = _scores(exact), _boxes(exact)
        tie = near_ties(scores)
        self.detections += len(exact)
        self.near_ties += int(tie.sum())
        if len(other) == 0:
            self.unmatched += int((~tie).sum())
            return
        iou = _iou(boxes, _boxes(other))
        if exact.has("pred_classes"):
            iou = iou * (exact.pred_classes[:, None] == other.pred_classes)
        # Boxes at the border of the image may become equal when they are clipped; then the score decides.
        index = (iou - 0.01 * (scores[:, None] - _scores(other)).abs()).argmax(dim=1)
        best = iou.gather(1, index[:, None])[:, 0]
        chosen = ~tie & (best >= MATCH_IOU)
        self.unmatched += int((~tie & (best < MATCH_IOU)).sum())
        theirs = index[chosen]
        moved = (boxes.tensor[chosen] - _boxes(other).tensor[theirs])[:, :4].abs().amax(dim=1)
        extent = boxes.tensor[chosen]
        longer = extent[:, 2:4] if extent.shape[1] == 5 else extent[:, 2:] - extent[:, :2]
        self.pixels += moved.tolist()
        self.sides += (moved / longer.amax(dim=1).clamp(min=1)).tolist()
        self.scores += (scores[chosen] - _scores(other)[theirs]).abs().tolist()


def near_ties(scores: Tensor) -> Tensor:
    """Return a bool per score: True if another score differs by less than ``NEAR_TIE``."""
    ordered, order = scores.sort()
    close = ordered.diff() <= NEAR_TIE
    edge = close.new_zeros(1)
    tie = torch.cat([close, edge]) | torch.cat([edge, close])
    return torch.empty_like(tie).scatter_(0, order, tie)


def _boxes(instances: Instances) -> Boxes:
    return instances.pred_boxes if instances.has("pred_boxes") else instances.proposal_boxes


def _scores(instances: Instances) -> Tensor:
    scores = instances.scores if instances.has("scores") else instances.objectness_logits.sigmoid()
    return scores.float()


def _iou(a: Boxes, b: Boxes) -> Tensor:
    return pairwise_iou(a, b) if a.tensor.shape[1] == 4 else pairwise_iou_rotated(a, b)


def overrides(name: str, model_size: str, backbone: str | None) -> Iterator[str]:
    """Yield the overrides of a model's config."""
    yield f"model={name}"
    yield f"size={model_size}"
    if "panoptic" in name or "semantic" in name:
        yield "data=shapes_panoptic"
    else:
        yield "data=shapes_rotated" if "rotated" in name else "data=shapes"
    yield "preset=none"
    if "vitdet" in name:
        yield "backbone=vitdet_slim"
        yield "backbone.img_size=320"
    elif backbone is not None:
        yield f"backbone={backbone}"
    else:  # the last stage of C4 and DC5 has bottlenecks
        yield "backbone=r50_slim" if "c4" in name or "dc5" in name else "backbone=r18"


def images(name: str, count: int, size: tuple[int, int]) -> list[ModelInput]:
    """Return generated images for a model."""
    dataset = ShapesDataset(
        num_images=count, seed=3, image_size=size, rotation=45 if "rotated" in name else 15
    )
    return [{"image": torch.as_tensor(dataset[i].image), "image_id": i} for i in range(count)]


@contextlib.contextmanager
def _spreading_scores(model: nn.Module) -> Iterator[None]:
    """Scale the weights of each classifier at its first call, so that its logits have a usual spread."""

    def spread(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        if layer in settled:
            return None
        settled.add(layer)
        layer.weight.mul_(SCORE_STD / output.float().std().clamp(min=1e-6))
        return layer.forward(*args)

    settled: set[nn.Module] = set()
    handles = [
        module.register_forward_hook(spread)
        for path, module in model.named_modules()
        if path.rpartition(".")[2] in CLASSIFIERS
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def build(settings: Iterable[str], batch: Sequence[ModelInput]) -> MetaArchitecture:
    """Build the exact model of a config with these overrides; the same weights each time."""
    torch.manual_seed(0)
    model = hydet.instantiate(hydet.compose(*settings).model)
    damp_residuals(model)
    generator = getattr(model, "proposal_generator", None)
    if isinstance(generator, RPN) and isinstance(model, GeneralizedRCNN):
        generator.post_nms_topk[False] = NUM_PROPOSALS
    if isinstance(model, FCOS):
        nn.init.constant_(model.head.bbox_pred.bias, FCOS_REACH)
    calibrate(model, batch)
    with _spreading_scores(model):
        model.inference(batch)
    calibrate(model, batch)  # the thresholds fit the new scores
    if isinstance(model, DenseDetector):
        model.test_score_thresh = 0.0
    return model


def open_trained(run: Path) -> tuple[MetaArchitecture, tuple[int, int]]:
    """Return the exact model of a run, and the height and width of its training images."""
    detector = open_checkpoint(run, device="cpu")
    height, width = detector.config.data.image_size
    model = detector.model
    assert isinstance(model, MetaArchitecture)
    return model, (height, width)


@torch.inference_mode()
def compare(
    name: str, settings: Iterable[str], modes: Sequence[str], count: int, run: Path | None
) -> dict[str, Differences]:
    """Run all images of an architecture through the exact model and its other forms.

    Args:
        name: option of ``conf/model``.
        settings: overrides of its config, for random weights.
        modes: forms to compare with the exact one.
        count: number of images.
        run: output folder of a training run, or None for random weights.
    """
    if run is None:
        batch = images(name, count, SIZE)
        exact = build(settings, batch[:2])
    else:
        exact, size = open_trained(run)
        batch = images(name, count, size)
    models = {FLOAT64: copy.deepcopy(exact).double()}
    models |= {mode: optimize(copy.deepcopy(exact), mode) for mode in modes}
    differences = {mode: Differences() for mode in models}
    for position, entry in enumerate(batch):
        if position == FLOAT64_IMAGES:
            del models[FLOAT64]
        (expected,) = exact.inference([entry])
        for mode, model in models.items():
            (actual,) = model.inference([entry])
            for key in ("instances", "proposals"):
                if key in expected:
                    differences[mode].add(actual[key], expected[key])
            if "sem_seg" in expected:
                other = actual["sem_seg"].argmax(dim=0) != expected["sem_seg"].argmax(dim=0)
                differences[mode].labels.append(float(other.float().mean()))
    return differences


def bf16_bounds(name: str) -> tuple[float, float]:
    """Return the bounds of a model for boxes and scores."""
    return BF16_BOUNDS_OF_ONE_MAP if name.endswith(("c4", "dc5")) else BF16_BOUNDS


def within(name: str, mode: str, compared: Differences) -> bool:
    """Return True if all compared detections are within the bounds; for bf16, 95 of 100. Labels are bounded per image."""
    if max(compared.labels, default=0.0) > (FAST_LABELS if mode == "fast" else BF16_LABELS):
        return False
    if mode == "fast":
        return compared.unmatched == 0 and (
            not compared.pixels
            or (max(compared.pixels) <= FAST_PIXELS and max(compared.scores) <= FAST_SCORE)
        )
    sides, score = bf16_bounds(name)
    return not compared.sides or (
        percentile(compared.sides) <= sides and percentile(compared.scores) <= score
    )


def bounds_text(bounds: tuple[float, float]) -> str:
    """Describe bounds of bf16."""
    return f"{bounds[0]:.1%} of the longer side and {bounds[1]:g} score"


def percentile(values: Sequence[float]) -> float:
    """Return the value that 95 of 100 values do not exceed."""
    return sorted(values)[int(0.95 * (len(values) - 1))]


HEADER = [
    "model",
    "mode",
    "detections",
    "near-ties",
    "compared",
    "unmatched",
    "box, px: 95%, largest",
    "box / side: 95%, largest",
    "score: 95%, largest",
    "other semantic label",
    "within bounds",
]


def row(name: str, mode: str, compared: Differences, verdict: str) -> list[str]:
    """Return the cells of an architecture and a mode."""

    def spread(values: Sequence[float]) -> str:
        return f"{percentile(values):.1e}, {max(values):.1e}" if values else "-"

    return [
        name,
        mode,
        str(compared.detections),
        str(compared.near_ties),
        str(len(compared.pixels)),
        str(compared.unmatched),
        spread(compared.pixels),
        spread(compared.sides),
        spread(compared.scores),
        f"{max(compared.labels):.2%}" if compared.labels else "-",
        verdict,
    ]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=architectures(), default=architectures())
    parser.add_argument(
        "--checkpoints",
        nargs="+",
        metavar="MODEL=RUN",
        default=[],
        help="trained models, instead of --models",
    )
    parser.add_argument("--modes", nargs="+", choices=["fast", "bf16"], default=["fast", "bf16"])
    parser.add_argument(
        "--model-size",
        default="standard",
        help="option of conf/size; slim for bf16 on a processor without its instructions",
    )
    parser.add_argument(
        "--backbone",
        help="option of conf/backbone for all models without a vision transformer; default: r50_slim for C4 and DC5, "
        "r18 for others",
    )
    parser.add_argument("--images", type=int, default=20, help="images per architecture")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the table")
    return parser.parse_args()


def main() -> int:
    args = parse()
    torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore", message=".*bfloat16 instructions")  # slower, with the same numbers
    today = datetime.date.today().isoformat()
    runs = dict(entry.split("=", 1) for entry in args.checkpoints)
    backbones = f"backbone={args.backbone or 'r18, in C4 and DC5 models r50_slim'}"
    weights = (
        "of the size that the trained models were trained with"
        if runs
        else f"of {SIZE[0]} x {SIZE[1]}, size={args.model_size}, {backbones}, random weights, {NUM_PROPOSALS} proposals"
    )
    lines = [
        f"# Fast and bf16 inference beside exact inference, {today}",
        "",
        f"- {args.images} generated images per architecture, {weights}",
        f"- {device_name('cpu')}, torch {torch.__version__}, hydet {hydet.__version__}, "
        f"Python {platform.python_version()}",
        f"- bounds: fast {FAST_PIXELS:g} px and {FAST_SCORE:g} score, every detection matched; bf16, for 95 of "
        f"100 detections, {bounds_text(BF16_BOUNDS)}, in C4 and DC5 models {bounds_text(BF16_BOUNDS_OF_ONE_MAP)}; "
        f"other semantic labels: fast {FAST_LABELS:.1%}, bf16 {BF16_LABELS:.0%} of the pixels of an image",
        f"- {FLOAT64}: the exact model compared with itself in float64, on {FLOAT64_IMAGES} images",
        f"- unmatched: no detection of the same class with an IoU of {MATCH_IOU:g} or more",
        f"- command: `{shlex.join(['python', 'benchmarks/agreement.py', *sys.argv[1:]])}`",
        "",
        "| " + " | ".join(HEADER) + " |",
        "|" + " --- |" * len(HEADER),
    ]
    args.results.mkdir(parents=True, exist_ok=True)
    kind = [*args.modes, "trained"] if runs else args.modes
    if args.model_size != "standard":
        kind = [*kind, args.model_size]
    if args.backbone:
        kind = [*kind, args.backbone]
    path = args.results / f"agreement_{'_'.join(kind)}_{today}.md"
    good = True
    for name in runs or args.models:
        run = Path(runs[name]) if runs else None
        settings = overrides(name, args.model_size, args.backbone)
        for mode, compared in compare(name, settings, args.modes, args.images, run).items():
            verdict = "-"
            if mode != FLOAT64:
                fits = within(name, mode, compared)
                good, verdict = good and fits, "yes" if fits else "**no**"
            lines.append("| " + " | ".join(row(name, mode, compared, verdict)) + " |")
            print(lines[-1], flush=True)
            path.write_text("\n".join([*lines, ""]), encoding="utf-8")  # a run can be interrupted
    print(f"Written to {path}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
