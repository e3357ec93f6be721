"""Random images with objects, and random weights that detect a known number of them, for benchmarks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops.misc import FrozenBatchNorm2d as TorchvisionFrozenBatchNorm2d

from hydet.layers import FrozenBatchNorm2d
from hydet.modeling import (
    BasicBlock,
    BottleneckBlock,
    DenseDetector,
    FastRCNNOutputLayers,
    GeneralizedRCNN,
    MetaArchitecture,
)
from hydet.structures import BitMasks, Boxes, Instances, Keypoints, ModelInput, RotatedBoxes

__all__ = ["calibrate", "damp_residuals", "random_batch", "settling_norms", "threshold_of"]

CANDIDATES = 1000  # pairs of region and class per image above the score threshold, enough for 100 detections
OBJECTS = 8
_RESIDUAL_SCALE = 0.2
_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, FrozenBatchNorm2d, TorchvisionFrozenBatchNorm2d)


def damp_residuals(model: nn.Module) -> None:
    """Scale the residual branches of a new ResNet down to the size of trained ones, in place.

    Otherwise features grow with each block, and rounding errors with them, until scores are equal and boxes are larger
    than the image.
    """
    for block in model.modules():
        if isinstance(block, BasicBlock | BottleneckBlock):
            norm = (block.conv2 if isinstance(block, BasicBlock) else block.conv3).norm
            weight = getattr(norm, "weight", None)
            assert isinstance(weight, Tensor)
            nn.init.constant_(weight, _RESIDUAL_SCALE)


def random_batch(
    model: MetaArchitecture,
    count: int,
    size: tuple[int, int],
    *,
    num_classes: int,
    num_keypoints: int,
    num_labels: int,
    seed: int = 0,
) -> list[ModelInput]:
    """Make smooth random images with objects that have every label the model can learn from.

    Args:
        model: its tasks decide which labels it needs.
        count: number of images.
        size: (height, width) in pixels.
        num_classes: number of foreground classes.
        num_keypoints: keypoints per object.
        num_labels: number of semantic labels.
        seed: decides all values.
    """
    random = torch.Generator().manual_seed(seed)
    height, width = size
    batch: list[ModelInput] = []
    for i in range(count):
        coarse = torch.rand(1, 3, max(2, height // 16), max(2, width // 16), generator=random) * 255
        image = F.interpolate(coarse, size=size, mode="bicubic")[0].clamp(0, 255).byte()
        sides = torch.rand(OBJECTS, 2, generator=random) * 0.4 + 0.05
        corner = torch.rand(OBJECTS, 2, generator=random) * (1 - sides)
        boxes = torch.cat([corner, corner + sides], dim=1) * torch.tensor([width, height] * 2)
        instances = Instances(
            size, gt_boxes=Boxes(boxes), gt_classes=torch.randint(num_classes, (OBJECTS,), generator=random)
        )
        if "rotated" in model.tasks or "rotated_proposals" in model.tasks:
            angles = torch.rand(OBJECTS, 1, generator=random) * 180 - 90
            center, extent = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
            instances.gt_boxes = RotatedBoxes(torch.cat([center, extent, angles], dim=1))
        if "mask" in model.tasks:
            instances.gt_masks = BitMasks(_ellipses(boxes, size))
        if "keypoints" in model.tasks:
            position = torch.rand(OBJECTS, num_keypoints, 2, generator=random)
            points = boxes[:, None, :2] + position * (boxes[:, None, 2:] - boxes[:, None, :2])
            visible = torch.full((OBJECTS, num_keypoints, 1), 2.0)
            instances.gt_keypoints = Keypoints(torch.cat([points, visible], dim=2))
        entry: ModelInput = {"image": image, "instances": instances, "image_id": i}
        if "semantic" in model.tasks:
            labels = torch.randint(num_labels, (1, 1, height // 32 + 1, width // 32 + 1), generator=random)
            entry["sem_seg"] = F.interpolate(labels.float(), size=size)[0, 0].long()
        batch.append(entry)
    return batch


def _ellipses(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Return ``(N, H, W)`` bool masks of the ellipses inscribed in the boxes."""
    y = (torch.arange(size[0]) + 0.5)[:, None]
    x = torch.arange(size[1]) + 0.5
    center, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    (cx, cy), (rx, ry) = center[..., None, None].unbind(1), half[..., None, None].unbind(1)
    return ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1


@torch.no_grad()
def calibrate(model: nn.Module, batch: Sequence[ModelInput]) -> None:
    """Give a hydet model with random weights feature maps of usual size, and a score threshold that objects pass.

    The statistics of batch norms are set from the batch, layer by layer, as otherwise the activations of a deep network
    with random weights explode. In an R-CNN, ``CANDIDATES`` pairs of region and class per image pass the threshold; a
    dense detector selects a fixed number of candidates anyway, so its threshold is 0.
    """
    model.eval()
    assert isinstance(model, MetaArchitecture)
    with settling_norms(model):
        model.backbone(model.preprocess_image(batch).tensor)
    if isinstance(model, DenseDetector):
        model.test_score_thresh = 0.0
    if isinstance(model, GeneralizedRCNN) and isinstance(model.roi_heads, nn.Module):
        for module in model.roi_heads.modules():
            if isinstance(module, FastRCNNOutputLayers):
                module.test_score_thresh = _threshold(model, module, batch)


@contextlib.contextmanager
def settling_norms(model: nn.Module) -> Iterator[None]:
    """Set the statistics of each norm to those of its input, before it runs."""

    def settle(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if args[0].numel() == 0:  # no regions
            return
        variance, mean = torch.var_mean(args[0].float(), dim=(0, 2, 3))
        module.running_mean.copy_(mean)  # type: ignore[operator]
        module.running_var.copy_(variance.clamp(min=1e-6))  # type: ignore[operator]

    handles = [m.register_forward_pre_hook(settle) for m in model.modules() if isinstance(m, _NORMS)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _threshold(model: GeneralizedRCNN, predictor: FastRCNNOutputLayers, batch: Sequence[ModelInput]) -> float:
    """Return the score that ``CANDIDATES`` pairs of region and class per image exceed."""
    logits: list[Tensor] = []
    predictor.test_score_thresh = 2.0  # nothing is detected, so the other heads have no regions
    handle = predictor.register_forward_hook(lambda _, __, output: logits.append(output[0]))
    assert isinstance(model.roi_heads, nn.Module)
    with settling_norms(model.roi_heads):  # the last stage of a ResNet, in C4 models
        model.inference(batch)
    handle.remove()
    return threshold_of(logits[-1].float().softmax(dim=1)[:, :-1], len(batch))


def threshold_of(scores: Tensor, num_images: int) -> float:
    """Return the score that ``CANDIDATES`` pairs per image exceed, among ``(R, K)`` scores of all images."""
    flat = scores.flatten()
    return float(flat.topk(min(CANDIDATES * num_images, flat.numel())).values[-1])
