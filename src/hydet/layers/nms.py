"""Non-maximum suppression of upright and rotated boxes, optionally per group."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import nms

from hydet.kernels import batched_nms_rotated, nms_padded, nms_rotated

__all__ = ["batched_nms", "batched_nms_rotated", "nms", "nms_rotated"]

_MANY_BOXES = 1000  # on a CPU, above this count, suppressing per group is faster than offsetting groups


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """Apply non-maximum suppression within each group.

    Args:
        boxes: ``(N, 4)`` xyxy; coordinates may be negative.
        scores: ``(N,)``.
        idxs: ``(N,)`` group of each box; boxes of different groups do not suppress each other.
        iou_threshold: a box is dropped if its IoU with a box of higher score is above this.

    Returns:
        Indices of the remaining boxes, sorted by descending score.

    Raises:
        ValueError: if the lengths differ.
    """
    if not torch.compiler.is_compiling():
        if not boxes.shape[0] == scores.shape[0] == idxs.shape[0]:
            counts = (boxes.shape[0], scores.shape[0], idxs.shape[0])
            raise ValueError(f"batched_nms needs equally many boxes, scores and idxs, got {counts}")
        if boxes.device.type == "cpu" and boxes.shape[0] > _MANY_BOXES:
            indices, count = nms_padded(boxes.float()[None], scores[None], iou_threshold, groups=idxs[None])
            return indices[0, : int(count)]
    # Shift each group by an offset, so that one suppression handles all of them. Offsets use up the precision of
    # float32, hence float64; ONNX supports float32 alone.
    boxes = boxes.to(torch.float32 if torch.compiler.is_exporting() else torch.float64)
    coordinates = torch.cat([boxes.flatten(), boxes.new_zeros(1)])  # never empty
    offsets = idxs.to(boxes) * (coordinates.max() - coordinates.min() + 1)
    shifted, scores = boxes + offsets[:, None], scores.to(boxes)
    if not torch.compiler.is_exporting():
        return _nms(shifted, scores, iou_threshold)
    # The exporter assumes that torchvision.ops.nms keeps at least two boxes: append two empty boxes, which are always
    # kept, and drop them afterwards.
    shifted = torch.cat([shifted, shifted.new_zeros(2, 4)])
    indices = _nms(shifted, torch.cat([scores, scores.new_full((2,), -torch.inf)]), iou_threshold)
    return indices[indices < idxs.shape[0]]


def _nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    indices: Tensor = nms(boxes, scores, iou_threshold)  # torchvision has no types
    return indices
