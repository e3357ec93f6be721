"""Non-maximum suppression, plain, by group and for rotated boxes."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import batched_nms as _torchvision_batched_nms
from torchvision.ops import nms

__all__ = ["batched_nms", "batched_nms_rotated", "nms", "nms_rotated"]


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """Suppress within each group.

    Args:
        boxes: ``(N, 4)``, anywhere, also at negative coordinates.
        scores: ``(N,)``.
        idxs: ``(N,)`` group of each box; groups never suppress one another.
        iou_threshold: a box goes if its IoU with a better one is greater.

    Returns:
        Indices of the boxes kept, by descending score.
    """
    return _torchvision_batched_nms(boxes.float(), scores, idxs, iou_threshold)


def nms_rotated(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Suppress ``(N, 5)`` boxes (cx, cy, w, h, degrees counter-clockwise); see ``batched_nms``."""
    from hydet import kernels

    return kernels.nms_rotated(boxes, scores, iou_threshold)


def batched_nms_rotated(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """``batched_nms`` for ``(N, 5)`` boxes (cx, cy, w, h, degrees counter-clockwise)."""
    from hydet import kernels

    if boxes.shape[0] == 0:
        return torch.empty(0, dtype=torch.int64, device=boxes.device)
    return kernels.batched_nms_rotated(boxes, scores, idxs, iou_threshold)
