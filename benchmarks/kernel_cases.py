"""The cases of ``kernels.py``: every op at realistic shapes, with all implementations to time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torchvision
from rotated_loop import rotated_loop
from torch import Tensor

from hydet import kernels
from hydet.modeling.optimization.reduced_precision import has_fast_bfloat16

IMAGE = (800, 1344)
STRIDES = (4, 8, 16, 32)
RETINANET_IMAGE = (896, 1600)  # 268,569 anchors
RETINANET_STRIDES = (8, 16, 32, 64, 128)
Run = Callable[[], object]


@dataclass
class Case:
    """One row of the table: functions that compute the same result, and the bytes that any of them must move."""

    op: str
    what: str
    dtype: str
    runs: dict[str, Run]
    bytes: int
    seconds: dict[str, float | str] = field(default_factory=dict)


@contextmanager
def forced(backend: str) -> Iterator[None]:
    """Run every op with one backend; an empty name restores their own choice."""
    before = os.environ.get("HYDET_KERNELS")
    os.environ["HYDET_KERNELS"] = backend
    try:
        yield
    finally:
        if before is None:
            del os.environ["HYDET_KERNELS"]
        else:
            os.environ["HYDET_KERNELS"] = before


def under(backend: str, run: Run) -> Run:
    def call() -> object:
        with forced(backend):
            return run()

    return call


def deterministically(run: Run) -> Run:
    def call() -> object:
        torch.use_deterministic_algorithms(True)
        try:
            return run()
        finally:
            torch.use_deterministic_algorithms(False)

    return call


def size_of(*tensors: Tensor) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def name_of(dtype: torch.dtype) -> str:
    return {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]


def upright_boxes(count: int, device: str, *, low: float = 16, high: float = 400) -> Tensor:
    side = low * (high / low) ** torch.rand(count, 2)
    center = torch.rand(count, 2) * torch.tensor([IMAGE[1], IMAGE[0]])
    boxes = torch.cat([center - side / 2, center + side / 2], dim=1)
    limit = torch.tensor([IMAGE[1], IMAGE[0], IMAGE[1], IMAGE[0]])
    return torch.minimum(boxes.clamp(min=0), limit).to(device)


def rotated_boxes(count: int, device: str, *, spread: bool) -> Tensor:
    """Return boxes all over an image, few of which overlap, or within a small area, where almost all overlap."""
    extent = torch.tensor([IMAGE[1], IMAGE[0]]) if spread else torch.tensor([100.0, 100.0])
    low, high = (16, 200) if spread else (50, 200)
    side = low + (high - low) * torch.rand(count, 2) ** (2 if spread else 1)
    return torch.cat([torch.rand(count, 2) * extent, side, torch.rand(count, 1) * 360 - 180], dim=1).to(
        device
    )


def pyramid(num_images: int, channels: int, device: str, dtype: torch.dtype) -> list[Tensor]:
    return [
        torch.randn(num_images, channels, IMAGE[0] // s, IMAGE[1] // s, device=device, dtype=dtype)
        for s in STRIDES
    ]


def levels_of(boxes: Tensor) -> Tensor:
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return (4 + torch.log2(area.clamp(min=1).sqrt() / 224)).floor().clamp(2, 5).long() - 2


def both_directions(
    run: Callable[[], Tensor], inputs: list[Tensor], backends: tuple[str, ...]
) -> tuple[dict, dict]:
    """Return forward and backward runs of a differentiable op with each backend."""
    forward = {name: under(name, lambda: run().detach()) for name in backends}
    backward: dict[str, Run] = {}
    for name in backends:
        with forced(name):
            try:
                out = run()
            except Exception as error:  # measure the other backends
                print(f"  {name}: {error}")
                continue
        grad = torch.ones_like(out)
        backward[name] = under(
            name, lambda out=out, grad=grad: torch.autograd.grad(out, inputs, grad, retain_graph=True)
        )
    return forward, backward


def roi_align_cases(device: str, dtype: torch.dtype, full: bool, ours: tuple[str, ...]) -> Iterator[Case]:
    channels = 256
    # (images, regions per image, bins): proposals in inference, samples in training, and their masks
    shapes = [(1, 1000, 7), (8, 1000, 7), (16, 512, 7), (16, 128, 14)] if full else [
        (1, 1000, 7), (1, 512, 7), (1, 100, 14)
    ]  # fmt: skip
    for num_images, regions, bins in shapes:
        features = [f.requires_grad_() for f in pyramid(num_images, channels, device, dtype)]
        boxes = upright_boxes(num_images * regions, device)
        image = torch.arange(num_images, device=device).repeat_interleave(regions)[:, None]
        levels, scales = levels_of(boxes), [1 / s for s in STRIDES]
        rois = torch.cat([image, boxes], dim=1)
        center, side = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
        rotated = torch.cat([image, center, side, torch.rand(len(boxes), 1, device=device) * 360], dim=1)
        settings = {"output_size": (bins, bins), "spatial_scales": scales, "levels": levels}
        what = f"{num_images} x {regions} regions, 4 levels, {bins}x{bins}, adaptive"
        moved = size_of(*features) + num_images * regions * channels * bins**2 * features[0].element_size()
        for op, run, backends in (
            ("roi_align", lambda f=features, r=rois, s=settings: kernels.roi_align(f, r, **s), ("torchvision",)),
            ("roi_align_rotated", lambda f=features, r=rotated, s=settings: kernels.roi_align_rotated(f, r, **s), ()),
        ):  # fmt: skip
            forward, backward = both_directions(run, features, ours + backends)
            if device == "cuda" and "triton" in backward:
                backward["triton, deterministic"] = deterministically(backward["triton"])
            if device == "cpu" and backends:
                directions = both_directions(run, features, ("",))
                forward["default on a CPU"], backward["default on a CPU"] = (
                    directions[0][""],
                    directions[1][""],
                )
            yield Case(op, what + ", forward", name_of(dtype), forward, moved)
            yield Case(op, what + ", backward", name_of(dtype), backward, moved)


def rotated_cases(device: str, full: bool, ours: tuple[str, ...]) -> Iterator[Case]:
    loop = rotated_loop() if device == "cpu" else None
    for count in (1000, 2000):
        for spread in (True, False):
            boxes, scores = rotated_boxes(count, device, spread=spread), torch.rand(count, device=device)
            what = f"{count} boxes, {'spread' if spread else 'crowded'}"
            runs = {name: under(name, lambda b=boxes: kernels.box_iou_rotated(b, b)) for name in ours}
            try:
                torchvision.ops.box_iou(boxes[:1], boxes[:1], fmt="cxcywhr")
                runs["torchvision"] = lambda b=boxes: torchvision.ops.box_iou(b, b, fmt="cxcywhr")
            except (TypeError, ValueError, RuntimeError):
                pass  # before torchvision 0.27
            if loop is not None:
                torch.testing.assert_close(  # both must compute the same result
                    loop.iou(boxes, skip_far=True), kernels.box_iou_rotated(boxes, boxes), rtol=0, atol=1e-5
                )
                runs["C++ loop"] = lambda b=boxes, loop=loop: loop.iou(b, skip_far=True)
                runs["C++ loop, no circle test"] = lambda b=boxes, loop=loop: loop.iou(b, skip_far=False)
            yield Case("box_iou_rotated", what, "fp32", runs, 2 * size_of(boxes) + 4 * count**2)
            runs = {
                name: under(name, lambda b=boxes, s=scores: kernels.nms_rotated(b, s, 0.5)) for name in ours
            }
            if loop is not None:
                runs["C++ loop"] = lambda b=boxes, s=scores, loop=loop: loop.nms(b, s, skip_far=True)
                runs["C++ loop, no circle test"] = lambda b=boxes, s=scores, loop=loop: loop.nms(
                    b, s, skip_far=False
                )
            yield Case("nms_rotated", what, "fp32", runs, size_of(boxes, scores))
    # Proposals of a batch of small images: 8 images with 5 levels.
    boxes, scores = rotated_boxes(7000, device, spread=False), torch.rand(7000, device=device)
    groups = torch.randint(0, 40, (7000,), device=device)
    runs = {
        name: under(name, lambda: kernels.batched_nms_rotated(boxes, scores, groups, 0.5)) for name in ours
    }
    if loop is not None:
        parts = [(boxes[groups == g], scores[groups == g]) for g in range(40)]
        runs["C++ loop"] = lambda: [loop.nms(b, s, skip_far=True) for b, s in parts]
        runs["C++ loop, no circle test"] = lambda: [loop.nms(b, s, skip_far=False) for b, s in parts]
    yield Case("nms_rotated", "7000 boxes, crowded, 40 groups", "fp32", runs, size_of(boxes, scores))


def nms_padded_cases(device: str, full: bool, ours: tuple[str, ...]) -> Iterator[Case]:
    # (images, boxes, groups): one level of proposals, all levels of a batch, detections of 80 classes
    shapes = [(1, 1000, 1), (8, 1000, 1), (8, 4769, 5), (1, 1000, 80), (8, 1000, 80)] if full else [
        (1, 1000, 1), (2, 4000, 5), (1, 1000, 80)
    ]  # fmt: skip
    for num_images, count, num_groups in shapes:
        boxes = upright_boxes(num_images * count, device).view(num_images, count, 4)
        scores = torch.rand(num_images, count, device=device)
        groups = torch.randint(0, num_groups, (num_images, count), device=device) if num_groups > 1 else None

        def nms_per_image(b: Tensor = boxes, s: Tensor = scores, g: Tensor | None = groups) -> None:
            for image in range(b.shape[0]):
                if g is None:
                    torchvision.ops.nms(b[image], s[image], 0.7)
                else:
                    torchvision.ops.batched_nms(b[image], s[image], g[image], 0.7)

        runs: dict[str, Run] = {
            name: under(name, lambda b=boxes, s=scores, g=groups: kernels.nms_padded(b, s, 0.7, groups=g))
            for name in ours
        }
        if device == "cpu":
            runs["default on a CPU"] = under(
                "", lambda b=boxes, s=scores, g=groups: kernels.nms_padded(b, s, 0.7, groups=g)
            )
        runs["torchvision"] = nms_per_image
        what = f"{num_images} x {count} boxes, {num_groups} group{'s' if num_groups > 1 else ''}"
        yield Case("nms_padded", what, "fp32", runs, size_of(boxes, scores))


def match_anchors_cases(device: str, full: bool, ours: tuple[str, ...]) -> Iterator[Case]:
    settings = {"thresholds": [0.4, 0.5], "labels": [0, -1, 1], "allow_low_quality_matches": True}
    anchors = torch.cat(
        [
            torch.cat([c - s / 2, c + s / 2], dim=1)
            for stride in RETINANET_STRIDES
            for c in [torch.cartesian_prod(
                torch.arange(0, RETINANET_IMAGE[1], stride), torch.arange(0, RETINANET_IMAGE[0], stride)
            ).float().repeat_interleave(9, 0)]
            for s in [4 * stride * 2 ** (2 * torch.rand(len(c), 2))]
        ]
    ).to(device)  # fmt: skip
    for count in (20, 200, 2000) if full else (20, 200):
        gt_boxes = upright_boxes(count, device)

        def matrix(t: Tensor = gt_boxes) -> object:
            iou = torchvision.ops.box_iou(t, anchors)
            quality, matches = iou.max(dim=0)
            labels = torch.bucketize(quality, quality.new_tensor([0.4, 0.5]), right=True)
            best = iou.amax(dim=1, keepdim=True)
            return matches, labels, ((iou == best) & (best > 0)).any(dim=0)

        runs: dict[str, Run] = {
            name: under(name, lambda t=gt_boxes: kernels.match_anchors(anchors, t, **settings))
            for name in ours
        }
        runs["torchvision"] = matrix
        what = f"{len(anchors):,} anchors x {count} ground truths, low quality"
        yield Case("match_anchors", what, "fp32", runs, size_of(anchors, gt_boxes) + 9 * len(anchors))


def focal_cases(device: str, dtype: torch.dtype, full: bool, ours: tuple[str, ...]) -> Iterator[Case]:
    num_images, num_classes = (8 if full else 1), 80
    rows = [9 * -(-RETINANET_IMAGE[0] // s) * -(-RETINANET_IMAGE[1] // s) for s in RETINANET_STRIDES]
    levels = [
        (torch.randn(num_images, n, num_classes, device=device) - 4).to(dtype).requires_grad_() for n in rows
    ]
    targets = torch.full((num_images, sum(rows)), num_classes, device=device)
    targets[torch.rand(targets.shape, device=device) < 0.001] = 3

    def one_hot() -> Tensor:
        logits = torch.cat(levels, dim=1)
        one_hot_targets = torch.nn.functional.one_hot(targets, num_classes + 1)[..., :-1].to(logits.dtype)
        return torchvision.ops.sigmoid_focal_loss(logits, one_hot_targets, 0.25, 2.0, reduction="sum")

    forward, backward = both_directions(
        lambda: kernels.sigmoid_focal_loss(levels, targets, alpha=0.25, gamma=2.0), levels, ours
    )
    forward["torchvision"] = lambda: one_hot().detach()
    out = one_hot()
    backward["torchvision"] = lambda: torch.autograd.grad(out, levels, retain_graph=True)
    what = f"{num_images} x {sum(rows):,} anchors x {num_classes} classes"
    moved = size_of(*levels, targets)
    yield Case("sigmoid_focal_loss", what + ", forward", name_of(dtype), forward, moved)
    yield Case("sigmoid_focal_loss", what + ", backward", name_of(dtype), backward, moved + size_of(*levels))


def paste_cases(device: str, full: bool, ours: tuple[str, ...]) -> Iterator[Case]:
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    for count in (100,) if full else (30,):
        masks, boxes = torch.rand(count, 28, 28, device=device), upright_boxes(count, device)
        runs: dict[str, Run] = {
            name: under(name, lambda m=masks, b=boxes: kernels.paste_masks(m, b, IMAGE)) for name in ours
        }
        runs["torchvision"] = lambda m=masks, b=boxes: paste_masks_in_image(m[:, None], b, IMAGE) >= 0.5
        what = f"{count} masks of 28x28 to {IMAGE[0]}x{IMAGE[1]}"
        yield Case("paste_masks", what, "fp32", runs, size_of(masks, boxes) + count * IMAGE[0] * IMAGE[1])


def winograd_cases(device: str) -> Iterator[Case]:
    channels_last = torch.channels_last
    for num_inputs, num_outputs, height, width in (
        (256, 256, 100, 152),
        (256, 720, 100, 152),
        (512, 512, 25, 38),
    ):
        x = torch.randn(1, num_inputs, height, width, device=device).to(memory_format=channels_last)
        weight = torch.randn(num_outputs, num_inputs, 3, 3, device=device).to(memory_format=channels_last)
        inputs = [x.requires_grad_(), weight.requires_grad_()]
        transformed = kernels.transform_winograd_weight(weight.detach())
        moved = size_of(x, weight) + 4 * num_outputs * height * width
        what = f"{num_inputs} to {num_outputs} channels, {height} x {width}"
        runs: dict[str, Run] = {
            "torch": lambda x=x, w=transformed: kernels.winograd_conv2d_transformed(x, w),
            "torchvision": lambda x=x, w=weight: torch.nn.functional.conv2d(
                x.detach(), w.detach(), padding=1
            ),
        }
        yield Case("winograd_conv2d", what + ", inference", "fp32", runs, moved)
        if has_fast_bfloat16(x.device):
            rounded = [t.detach().bfloat16() for t in (x, transformed, weight)]
            runs = {
                "torch": lambda r=rounded: kernels.winograd_conv2d_transformed(r[0], r[1]),
                "torchvision": lambda r=rounded: torch.nn.functional.conv2d(r[0], r[2], padding=1),
            }
            yield Case("winograd_conv2d", what + ", inference", "bf16", runs, moved // 2)
        _, backward = both_directions(lambda x=x, w=weight: kernels.winograd_conv2d(x, w), inputs, ("torch",))
        theirs = torch.nn.functional.conv2d(*inputs, padding=1)
        gradient = torch.ones_like(theirs)
        backward["torchvision"] = lambda out=theirs, g=gradient, i=inputs: torch.autograd.grad(
            out, i, g, retain_graph=True
        )
        yield Case("winograd_conv2d", what + ", backward", "fp32", backward, 2 * moved)


def all_cases(device: str, full: bool) -> Iterator[Case]:
    ours = ("triton", "torch") if device == "cuda" else ("torch",)
    dtypes = (torch.float32, torch.bfloat16) if device == "cuda" else (torch.float32,)
    for dtype in dtypes:
        yield from roi_align_cases(device, dtype, full, ours)
    yield from rotated_cases(device, full, ours)
    yield from nms_padded_cases(device, full, ours)
    yield from match_anchors_cases(device, full, ours)
    for dtype in dtypes:
        yield from focal_cases(device, dtype, full, ours)
    yield from paste_cases(device, full, ours)
    if device == "cpu":  # on a GPU, cuDNN chooses the algorithm
        yield from winograd_cases(device)
