"""Definition of ``nms_rotated``: the greedy loop."""

from __future__ import annotations

import torch
from torch import Tensor

from hydet.kernels.box_iou_rotated.reference import forward_reference as box_iou_rotated_reference

__all__ = ["forward_reference"]


def forward_reference(boxes: Tensor, scores: Tensor, groups: Tensor | None, iou_threshold: float) -> Tensor:
    """Compute ``nms_rotated``: visit boxes by descending score, and keep those that no kept box suppresses."""
    iou = box_iou_rotated_reference(boxes, boxes)
    keep: list[int] = []
    for i in scores.argsort(descending=True, stable=True).tolist():
        rivals = [k for k in keep if groups is None or groups[i] == groups[k]]
        if all(iou[i, k] <= iou_threshold for k in rivals):
            keep.append(i)
    return torch.tensor(keep, dtype=torch.int64, device=boxes.device)
