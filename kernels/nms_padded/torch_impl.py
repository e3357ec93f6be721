"""Non-maximum suppression of upright boxes in PyTorch, one image at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from hydet.kernels.nms_padded.overlap import PAIRS_PER_CHUNK, iou_exceeds
from hydet.kernels.nms_padded.ranking import pack_survivors, rank_boxes
from hydet.kernels.suppression.torch_impl import greedy_survivors

__all__ = ["forward_torch"]


def _overlapping_pairs(
    boxes: Tensor, groups: Tensor | None, valid: Tensor, iou_threshold: float
) -> tuple[Tensor, Tensor]:
    """Return the pairs (i, j), i < j, of the ``(N, 4)`` sorted boxes of one image that exceed the threshold."""
    position = torch.arange(boxes.shape[0], device=boxes.device)
    coordinates = boxes.unbind(dim=1)
    pairs_i, pairs_j = [], []
    rows_per_chunk = max(1, PAIRS_PER_CHUNK // max(1, boxes.shape[0]))
    for first in range(0, boxes.shape[0], rows_per_chunk):
        rows, columns = slice(first, first + rows_per_chunk), slice(first, None)
        mask = iou_exceeds([c[rows] for c in coordinates], [c[columns] for c in coordinates], iou_threshold)
        mask &= position[rows, None] < position[columns]
        mask &= valid[rows, None] & valid[columns]
        if groups is not None:
            mask &= groups[rows, None] == groups[columns]
        i, j = mask.nonzero(as_tuple=True)
        pairs_i.append(i + first)
        pairs_j.append(j + first)
    return torch.cat(pairs_i), torch.cat(pairs_j)


def forward_torch(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor | None,
    valid: Tensor | None,
    iou_threshold: float,
    max_outputs: int,
) -> tuple[Tensor, Tensor]:
    """Compute ``nms_padded``."""
    num_images, num_boxes = scores.shape
    order, sorted_valid = rank_boxes(scores, valid)
    keep = sorted_valid.clone()
    for image in range(num_images if num_boxes > 0 else 0):
        image_order = order[image]
        i, j = _overlapping_pairs(
            boxes[image, image_order].float(),
            groups[image, image_order] if groups is not None else None,
            sorted_valid[image],
            iou_threshold,
        )
        keep[image] &= greedy_survivors(i, j, num_boxes)
    return pack_survivors(order, keep, max_outputs)
