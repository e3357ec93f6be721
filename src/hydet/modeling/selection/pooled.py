"""Suppression of detections of one image that several views or tiles of it have given."""

from __future__ import annotations

import torch
from torch import Tensor

from .suppression import suppress

__all__ = ["select_pooled"]


def select_pooled(
    boxes: Tensor, scores: Tensor, classes: Tensor, *, score_thresh: float, nms_thresh: float, topk: int
) -> Tensor:
    """Select pooled detections of one image by suppression within each class.

    Args:
        boxes: ``(N, 4)``, or ``(N, 5)`` rotated boxes, in one frame; not clipped. Non-finite boxes are dropped.
        scores: ``(N,)``; non-finite scores are dropped.
        classes: ``(N,)`` int64.
        score_thresh: strict lower bound of the scores.
        nms_thresh: IoU above which the box with the lower score is dropped.
        topk: maximum number of detections; negative for all.

    Returns:
        Indices of the selected detections in order of descending score.
    """
    boxes = boxes.float()
    scores = scores.to(boxes.dtype)
    valid = boxes.isfinite().all(dim=1) & scores.isfinite() & (scores > score_thresh)
    # Values of invalid candidates must not reach the IoU, where NaN would spread.
    boxes = torch.where(valid[:, None], boxes, 0.0)
    scores = torch.where(valid, scores, 0.0)
    # A batch of one image: (N, D) -> (1, N, D).
    indices, counts = suppress(boxes[None], scores[None], classes[None], valid[None], nms_thresh, topk)
    return indices[0, : int(counts[0])]
