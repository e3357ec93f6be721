"""Non-maximum suppression, plain, by group and for rotated boxes."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import nms

from hydet import kernels

__all__ = ["batched_nms", "batched_nms_rotated", "nms", "nms_rotated"]

_MANY_BOXES = 1000  # on a CPU, above this many, groups by themselves beat comparing boxes of all groups


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """Suppress within each group.

    Args:
        boxes: ``(N, 4)``, anywhere, also at negative coordinates.
        scores: ``(N,)``.
        idxs: ``(N,)`` group of each box; groups never suppress one another.
        iou_threshold: a box goes if its IoU with a better one is greater.

    Returns:
        Indices of the boxes kept, by descending score.

    Raises:
        ValueError: if the lengths differ.
    """
    if not torch.compiler.is_compiling():
        if not boxes.shape[0] == scores.shape[0] == idxs.shape[0]:
            counts = (boxes.shape[0], scores.shape[0], idxs.shape[0])
            raise ValueError(f"batched_nms needs as many boxes, scores and idxs, got {counts}")
        if boxes.device.type == "cpu" and boxes.shape[0] > _MANY_BOXES:
            kept, count = kernels.nms_padded(
                boxes.float()[None], scores[None], iou_threshold, groups=idxs[None]
            )
            return kept[0, : int(count)]
    # Move the groups apart, and suppress them all at once. Offsets cost float32 its precision; ONNX has nothing else.
    boxes = boxes.to(torch.float32 if torch.compiler.is_exporting() else torch.float64)
    reach = torch.cat([boxes.flatten(), boxes.new_zeros(1)])  # never empty
    offsets = idxs.to(boxes) * (reach.max() - reach.min() + 1)
    shifted, scores = boxes + offsets[:, None], scores.to(boxes)
    if not torch.compiler.is_exporting():
        return nms(shifted, scores, iou_threshold)
    # torchvision promises the exporter at least two survivors: add two empty boxes, which always survive, and drop them.
    shifted = torch.cat([shifted, shifted.new_zeros(2, 4)])
    kept = nms(shifted, torch.cat([scores, scores.new_full((2,), -torch.inf)]), iou_threshold)
    return kept[kept < idxs.shape[0]]


def nms_rotated(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Suppress ``(N, 5)`` boxes (cx, cy, w, h, degrees counter-clockwise); see ``batched_nms``."""
    return kernels.nms_rotated(boxes, scores, iou_threshold)


def batched_nms_rotated(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """``batched_nms`` for ``(N, 5)`` boxes (cx, cy, w, h, degrees counter-clockwise)."""
    return kernels.batched_nms_rotated(boxes, scores, idxs, iou_threshold)
