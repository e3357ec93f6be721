"""Overlap test of upright boxes that rounds as torchvision's CPU op does."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["PAIRS_PER_CHUNK", "iou_exceeds"]

PAIRS_PER_CHUNK = 1 << 17  # temporaries of this size stay in the cache


def iou_exceeds(a: Sequence[Tensor], b: Sequence[Tensor], iou_threshold: float) -> Tensor:
    """Return ``(..., I, J)`` bool, True where the IoU exceeds the threshold.

    Args:
        a: x1, y1, x2 and y2 of the first boxes, ``(..., I)`` each.
        b: x1, y1, x2 and y2 of the second boxes, ``(..., J)`` each.
        iou_threshold: IoU threshold.
    """
    a_x1, a_y1, a_x2, a_y2 = (coordinate[..., :, None] for coordinate in a)
    b_x1, b_y1, b_x2, b_y2 = (coordinate[..., None, :] for coordinate in b)
    intersection = (torch.minimum(a_x2, b_x2) - torch.maximum(a_x1, b_x1)).clamp_(min=0)
    intersection *= (torch.minimum(a_y2, b_y2) - torch.maximum(a_y1, b_y1)).clamp_(min=0)
    union = (a_x2 - a_x1) * (a_y2 - a_y1) + (b_x2 - b_x1) * (b_y2 - b_y1) - intersection
    # Like torchvision's CPU op, compute the IoU in float32 but compare it with the threshold in float64.
    return (intersection / union).double() > iou_threshold
