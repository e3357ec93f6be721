"""Compare the speed of Mask R-CNN R50-FPN in hydet and torchvision: same weights, inputs and work, interleaved runs.

    python benchmarks/compare_torchvision.py
    python benchmarks/compare_torchvision.py --size 832 1344 --batch 2 --runs 10 --threads 2
    python benchmarks/compare_torchvision.py --device cuda --dtype bfloat16

Prints a table of medians and their ratio, and writes it to ``benchmarks/results/``. torchvision's random weights are
copied into hydet's model, so that both detect the same objects; the report states how well they agree.

Equal on both sides: 81 classes with background, anchors, proposals before and after suppression (2000 and 2000 in
training, 1000 and 1000 in inference), 512 sampled regions, 2 x 2 samples per bin, score threshold, 100 detections, trainable
batch norms. Neither side resizes images. Different: torchvision returns masks as floats and hydet as bools.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch
import torchvision
from machine import device_name
from mask_rcnn_pair import NUM_CLASSES, build_hydet, build_torchvision, translate
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import hydet
from hydet.structures import BitMasks, Boxes, Instances

CANDIDATES = 1000  # (region, class) pairs per image above the score threshold
RESULTS = Path(__file__).parent / "results"
MODELS = ("torchvision", "hydet")
TASKS = ("inference", "training step")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


class Batch:
    """One batch of synthetic images with objects, in the input formats of both libraries."""

    def __init__(self, count: int, size: tuple[int, int], device: torch.device) -> None:
        height, width = size
        random = torch.Generator().manual_seed(0)
        self.torchvision, self.targets, self.hydet = [], [], []
        for i in range(count):
            coarse = torch.rand(1, 3, max(1, height // 16), max(1, width // 16), generator=random) * 255
            image = nn.functional.interpolate(coarse, size=size, mode="bicubic")[0].clamp(0, 255).byte()
            sides = torch.rand(8, 2, generator=random) * 0.4 + 0.05
            corner = torch.rand(8, 2, generator=random) * (1 - sides)
            boxes = torch.cat([corner, corner + sides], dim=1) * torch.tensor([width, height] * 2)
            classes = torch.randint(0, NUM_CLASSES, (8,), generator=random)
            masks = ellipses(boxes, size)
            image, boxes, classes, masks = (t.to(device) for t in (image, boxes, classes, masks))
            self.torchvision.append(image.float() / 255)
            self.targets.append({"boxes": boxes, "labels": classes + 1, "masks": masks.byte()})
            instances = Instances(size, gt_boxes=Boxes(boxes), gt_classes=classes, gt_masks=BitMasks(masks))
            self.hydet.append({"image": image, "instances": instances, "image_id": i})


def ellipses(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Return ``(N, H, W)`` bool masks of the ellipses inscribed in the boxes."""
    y = (torch.arange(size[0]) + 0.5)[:, None]
    x = torch.arange(size[1]) + 0.5
    center, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    (cx, cy), (rx, ry) = center[..., None, None].unbind(1), half[..., None, None].unbind(1)
    return ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1


class Comparison:
    """Both models with their optimizers, ready to run a task on one batch."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.device = torch.device(args.device)
        self.dtype = getattr(torch, args.dtype)
        self.clock = CLOCKS[args.clock]
        torch.manual_seed(0)
        self.batch = Batch(args.batch, tuple(args.size), self.device)
        theirs = build_torchvision().to(self.device)
        ours = build_hydet().to(self.device)
        settle_batch_norms(theirs, self.batch)
        ours.load_state_dict(translate(theirs.state_dict()))
        threshold = score_threshold(theirs, self.batch)
        theirs.roi_heads.score_thresh = threshold
        ours.roi_heads.box_predictor.test_score_thresh = threshold
        self.models = {"torchvision": theirs, "hydet": ours}
        self.optimizers = {
            name: torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9)
            for name, model in self.models.items()
        }

    def drop(self, name: str) -> None:
        """Delete a model."""
        del self.models[name], self.optimizers[name]

    def run(self, name: str, task: str) -> object:
        """Run one inference and return results, or one training step and return losses."""
        return self._infer(name) if task == "inference" else self._train(name)

    def autocast(self) -> contextlib.AbstractContextManager:
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def _infer(self, name: str) -> object:
        model = self.models[name].eval()
        with torch.inference_mode(), self.autocast():
            if name == "hydet":
                return [output["instances"] for output in model(self.batch.hydet)]
            return model(self.batch.torchvision)

    def _train(self, name: str) -> dict[str, Tensor]:
        model, optimizer = self.models[name].train(), self.optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        with self.autocast():
            if name == "hydet":
                losses = model(self.batch.hydet)
            else:
                losses = model(self.batch.torchvision, self.batch.targets)
            total = sum(losses.values())
        total.backward()
        optimizer.step()
        return losses

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, name: str, task: str) -> float:
        self.synchronize()
        start = self.clock()
        self.run(name, task)
        self.synchronize()
        return self.clock() - start


@torch.no_grad()
def settle_batch_norms(model: nn.Module, batch: Batch) -> None:
    """Set batch norm statistics from the batch, so that features of random weights neither vanish nor explode."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None
    images, _ = model.transform.train()(batch.torchvision)
    model.backbone.train()(images.tensors)
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum


@torch.no_grad()
def score_threshold(model: nn.Module, batch: Batch) -> float:
    """Return the threshold that ``CANDIDATES`` (region, class) pairs per image exceed."""
    logits = []
    hook = model.roi_heads.box_predictor.register_forward_hook(lambda _, __, out: logits.append(out[0]))
    model.roi_heads.score_thresh = 2.0
    model.eval()(batch.torchvision)
    hook.remove()
    scores = logits[0].float().softmax(dim=1)[:, 1:].flatten()
    return float(scores.topk(min(CANDIDATES * len(batch.torchvision), scores.numel())).values[-1])


@torch.inference_mode()
def agreement(comparison: Comparison) -> str:
    """Report how many detections of torchvision also come from hydet, and how far their mask probabilities differ."""
    predicted = []
    heads = comparison.models["torchvision"].roi_heads
    hook = heads.mask_predictor.register_forward_hook(
        lambda _, __, out: predicted.append(out.float().sigmoid())
    )
    theirs = comparison.run("torchvision", "inference")
    hook.remove()
    with comparison.autocast():
        ours = comparison.models["hydet"].eval().inference(comparison.batch.hydet, do_postprocess=False)
    masks = predicted[0].split([len(output["labels"]) for output in theirs])
    total = matched = 0
    farthest = 0.0
    for a, a_masks, b in zip(theirs, masks, ours):
        same = a["labels"][:, None] - 1 == b.pred_classes
        same &= torchvision.ops.box_iou(a["boxes"], b.pred_boxes.tensor) > 0.98
        same &= (a["scores"][:, None] - b.scores).abs() < 0.02 * a["scores"][:, None]
        total += same.shape[0]
        matched += int(same.any(dim=1).sum())
        i, j = same.nonzero().unbind(1)
        if i.numel() > 0:
            difference = a_masks[i, a["labels"][i]] - b.pred_masks[j, 0]
            farthest = max(farthest, float(difference.abs().max()))
    return (
        f"{matched} of torchvision's {total} detections match one of hydet's {sum(len(b) for b in ours)}; "
        f"mask probabilities differ by {farthest:.1g} at most"
    )


def peak_memory(comparison: Comparison, name: str, task: str) -> int:
    """Return the peak bytes that one run of a task allocates."""
    if comparison.device.type == "cuda":
        comparison.run(name, task)  # allocates gradients and optimizer state
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        comparison.run(name, task)
        return torch.cuda.max_memory_allocated() - before
    page = os.sysconf("SC_PAGE_SIZE")
    done, peak = threading.Event(), 0

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * page

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, resident())

    before = resident()
    watcher = threading.Thread(target=watch)
    watcher.start()
    comparison.run(name, task)
    peak = max(peak, resident())
    done.set()
    watcher.join()
    return peak - before


def peak_memory_apart(name: str, task: str) -> int | None:
    """Run ``peak_memory`` in a new process, whose allocator holds no freed memory."""
    if not Path("/proc/self/statm").exists() and "cuda" not in sys.argv:
        return None
    command = [sys.executable, __file__, *sys.argv[1:], "--memory-of", name, task]
    return json.loads(
        subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8").stdout
    )


def machine(device: torch.device, threads: int) -> str:
    text = f"{device_name('cpu')}, {os.cpu_count()} cores, {threads} threads"
    return f"{torch.cuda.get_device_name(device)}; {text}" if device.type == "cuda" else text


def measure(args: argparse.Namespace, comparison: Comparison) -> list[dict]:
    """Return one row per task: medians in seconds of interleaved runs, and peaks in bytes."""
    rows = []
    for task in TASKS:
        for _ in range(args.warmup):
            for name in MODELS:
                comparison.run(name, task)
        seconds: dict[str, list[float]] = {name: [] for name in MODELS}
        for _ in range(args.runs):
            for name in MODELS:
                seconds[name].append(comparison.seconds(name, task))
        row = {"task": task}
        for name in MODELS:
            row[name] = statistics.median(seconds[name])
            row[f"{name} range"] = (min(seconds[name]), max(seconds[name]))
            row[f"{name} memory"] = None if args.no_memory else peak_memory_apart(name, task)
        rows.append(row)
    return rows


def cells(row: dict) -> list[str]:
    def duration(name: str) -> str:
        low, high = row[f"{name} range"]
        return f"{row[name]:.3g} ({low:.3g} to {high:.3g})"

    def memory(name: str) -> str:
        size = row[f"{name} memory"]
        return "-" if size is None else f"{size / 2**20:.0f}"

    speed = row["torchvision"] / row["hydet"]
    return [
        row["task"],
        *(duration(n) for n in MODELS),
        f"{speed:.2f} x as fast",
        *(memory(n) for n in MODELS),
    ]


HEADER = ["task", "torchvision, s", "hydet, s", "hydet is", "torchvision, MiB", "hydet, MiB"]


def report(args: argparse.Namespace, rows: list[dict], notes: list[str]) -> None:
    """Print the table and write it to a dated file."""
    table = Table(*HEADER, title="Mask R-CNN R50-FPN: median (range), and peak memory of one run")
    for row in rows:
        table.add_row(*cells(row))
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    for note in notes:
        console.print(note, highlight=False)

    RESULTS.mkdir(exist_ok=True)
    today = datetime.date.today().isoformat()
    size = f"{args.size[0]}x{args.size[1]}"
    kind = torch.device(args.device).type
    threads = f"-threads{torch.get_num_threads()}" if kind == "cpu" else ""
    path = RESULTS / f"{today}-torchvision-{kind}-{args.dtype}-{size}-batch{args.batch}{threads}.md"
    lines = [
        f"# Mask R-CNN R50-FPN of hydet and torchvision, {today}",
        "",
        *(f"- {note}" for note in notes),
        "",
        "| " + " | ".join(HEADER) + " |",
        "|" + " --- |" * len(HEADER),
        *("| " + " | ".join(cells(row)) + " |" for row in rows),
        "",
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    console.print(f"Written to {path}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs=2, default=(512, 640), metavar=("H", "W"))
    parser.add_argument("--batch", type=int, default=1, help="images per batch")
    parser.add_argument("--runs", type=int, default=5, help="timed runs per model and task")
    parser.add_argument("--warmup", type=int, default=1, help="untimed runs before")
    parser.add_argument("--threads", type=int, default=None, help="threads of torch; its default if omitted")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--dtype",
        default="float32",
        choices=["float32", "bfloat16", "float16"],
        help="float16 and bfloat16 use autocast",
    )
    parser.add_argument(
        "--clock",
        default="wall",
        choices=CLOCKS,
        help="cpu: process time over all threads, for busy machines",
    )
    parser.add_argument("--no-memory", action="store_true", help="skip the memory measurements")
    parser.add_argument("--memory-of", nargs=2, metavar=("MODEL", "TASK"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if min(args.size) < 64 or min(args.batch, args.runs) < 1:
        parser.error("sizes must be at least 64, batch and runs at least 1")
    if torch.device(args.device).type == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device")
    if torch.device(args.device).type == "cuda" and args.clock == "cpu":
        parser.error("--clock cpu does not measure a CUDA device")
    return args


def main() -> int:
    args = parse()
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    comparison = Comparison(args)
    if args.memory_of is not None:
        name, task = args.memory_of
        comparison.drop(next(other for other in MODELS if other != name))
        print(json.dumps(peak_memory(comparison, name, task)))
        return 0
    notes = [
        f"{args.batch} x {args.size[0]} x {args.size[1]}, {args.dtype}, {args.runs} runs, alternating, {args.clock} clock",
        machine(comparison.device, torch.get_num_threads()),
        f"hydet {hydet.__version__}, torch {torch.__version__}, torchvision {torchvision.__version__}, "
        f"Python {platform.python_version()}",
        agreement(comparison),
    ]
    losses = {name: sum(comparison.run(name, "training step").values()).item() for name in MODELS}
    notes.append(
        "first training step (samples differ): loss "
        + " and ".join(f"{value:.3f} ({name})" for name, value in losses.items())
    )
    if not all(math.isfinite(value) for value in losses.values()):
        print(f"a loss is not finite: {losses}", file=sys.stderr)
        return 1
    report(args, measure(args, comparison), notes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
