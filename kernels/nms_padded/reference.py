"""Definition of ``nms_padded``: the greedy loop, one image at a time."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["forward_reference"]


def _pairwise_iou(boxes: Tensor) -> Tensor:
    """Return the ``(N, N)`` float32 IoU of ``(N, 4)`` boxes, NaN where it is undefined."""
    boxes = boxes.float()
    top_left = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    bottom_right = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    intersection = (bottom_right - top_left).clamp(min=0).prod(dim=2)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return intersection / (area[:, None] + area[None, :] - intersection)


def forward_reference(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor | None,
    valid: Tensor | None,
    iou_threshold: float,
    max_outputs: int,
) -> tuple[Tensor, Tensor]:
    """Compute ``nms_padded``: visit boxes by descending score, and keep those that no kept box suppresses."""
    indices = torch.zeros(boxes.shape[0], max_outputs, dtype=torch.int64, device=boxes.device)
    counts = torch.zeros(boxes.shape[0], dtype=torch.int64, device=boxes.device)
    for image in range(boxes.shape[0]):
        iou = _pairwise_iou(boxes[image]).tolist()
        keep: list[int] = []
        for i in scores[image].argsort(descending=True, stable=True).tolist():
            if valid is not None and not valid[image, i]:
                continue
            rivals = [k for k in keep if groups is None or groups[image, i] == groups[image, k]]
            if not any(iou[i][k] > iou_threshold for k in rivals):
                keep.append(i)
        keep = keep[:max_outputs]
        indices[image, : len(keep)] = torch.tensor(keep, dtype=torch.int64, device=boxes.device)
        counts[image] = len(keep)
    return indices, counts
