"""IoU of rotated boxes in PyTorch: only the pairs whose circumscribed circles meet are computed."""

from __future__ import annotations

import torch
from torch import Tensor

from hydet.kernels.box_iou_rotated.candidates import circumscribed_circles, meeting_pairs
from hydet.kernels.box_iou_rotated.overlap import gather_columns, pair_iou, prepare

__all__ = ["forward_torch"]


def forward_torch(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Compute ``box_iou_rotated`` in float64 and round once to float32."""
    iou = torch.zeros(boxes1.shape[0], boxes2.shape[0], dtype=torch.float32, device=boxes1.device)
    prepared1, prepared2 = prepare(boxes1), prepare(boxes2)
    flat_iou = iou.view(-1)
    for i, j in meeting_pairs(circumscribed_circles(boxes1), circumscribed_circles(boxes2)):
        values = pair_iou(gather_columns(prepared1, i), gather_columns(prepared2, j))
        flat_iou[i * boxes2.shape[0] + j] = values.float()
    return iou
