"""Definition of ``match_anchors``: argmax and thresholds on the full matrix of IoUs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["forward_reference"]


def _pairwise_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Return the ``(N, M)`` IoU of ``(N, 4)`` and ``(M, 4)`` boxes, 0 for boxes without a finite area."""
    top_left = torch.maximum(boxes1[:, None, :2], boxes2[None, :, :2])
    bottom_right = torch.minimum(boxes1[:, None, 2:], boxes2[None, :, 2:])
    intersection = (bottom_right - top_left).clamp(min=0).prod(dim=2)
    area1, area2 = ((boxes[:, 2:] - boxes[:, :2]).prod(dim=1) for boxes in (boxes1, boxes2))
    iou = intersection / (area1[:, None] + area2[None, :] - intersection)
    return torch.where(iou.isfinite(), iou, 0)


def forward_reference(
    anchors: Tensor,
    gt_boxes: Tensor,
    thresholds: Sequence[float],
    labels: Sequence[int],
    allow_low_quality_matches: bool,
) -> tuple[Tensor, Tensor]:
    """Compute ``match_anchors``."""
    anchors, gt_boxes = anchors.float(), gt_boxes.float()
    num_anchors = anchors.shape[0]
    if num_anchors == 0 or gt_boxes.shape[0] == 0:
        matches = torch.zeros(num_anchors, dtype=torch.int64, device=anchors.device)
        return matches, torch.full_like(matches, labels[0], dtype=torch.int8)
    iou = _pairwise_iou(gt_boxes, anchors)  # (G, R)
    best_iou, matches = iou.max(dim=0)
    match_labels = torch.full((num_anchors,), labels[0], dtype=torch.int8, device=anchors.device)
    for threshold, label in zip(thresholds, labels[1:], strict=True):
        match_labels[best_iou >= threshold] = label
    if allow_low_quality_matches:
        best_iou_of_gt = iou.amax(dim=1, keepdim=True)  # (G, 1)
        match_labels[((iou == best_iou_of_gt) & (iou > 0)).any(dim=0)] = 1
    return matches, match_labels
