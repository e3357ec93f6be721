"""Greedy suppression of upright boxes in plain torch, several images at once."""

from __future__ import annotations

import torch
from hydet.kernels.nms_rotated.reference import survivors
from torch import Tensor

__all__ = ["nms_padded_reference", "nms_padded_torchvision", "pack_survivors", "sort_by_score"]

PAIRS_PER_CHUNK = 1 << 17


def sort_by_score(scores: Tensor) -> Tensor:
    """``(B, N)`` order of each image's boxes by descending score, equal ones by position."""
    return scores.argsort(dim=1, descending=True, stable=True)


def pack_survivors(order: Tensor, keep: Tensor, max_outputs: int) -> tuple[Tensor, Tensor]:
    """First ``max_outputs`` survivors of each image, without asking the host how many there are.

    Args:
        order: ``(B, N)`` indices by descending score.
        keep: ``(B, N)`` bool in that order.
        max_outputs: K.

    Returns:
        ``(B, K)`` int64 indices, 0 behind the count, and ``(B,)`` int64 counts.
    """
    rank = keep.cumsum(dim=1) - 1
    slot = torch.where(keep & (rank < max_outputs), rank, max_outputs)  # the last slot collects the rest
    indices = order.new_zeros(order.shape[0], max_outputs + 1).scatter_(1, slot, order)
    return indices[:, :max_outputs].contiguous(), keep.sum(dim=1).clamp_(max=max_outputs)


def _overlapping_pairs(
    boxes: Tensor, groups: Tensor | None, alive: Tensor, iou_threshold: float
) -> tuple[Tensor, Tensor]:
    """Pairs (i, j), i before j, of one image's sorted boxes whose IoU is over the threshold."""
    position = torch.arange(boxes.shape[0], device=boxes.device)
    x1, y1, x2, y2 = boxes.unbind(dim=1)
    area = (x2 - x1) * (y2 - y1)
    found_i, found_j = [], []
    rows_per_chunk = max(1, PAIRS_PER_CHUNK // max(1, boxes.shape[0]))
    for first in range(0, boxes.shape[0], rows_per_chunk):
        rows, later = slice(first, first + rows_per_chunk), slice(first, None)
        width = (torch.minimum(x2[rows, None], x2[later]) - torch.maximum(x1[rows, None], x1[later])).clamp_(
            min=0
        )
        height = (torch.minimum(y2[rows, None], y2[later]) - torch.maximum(y1[rows, None], y1[later])).clamp_(
            min=0
        )
        shared = width.mul_(height)
        # float64 only where torchvision's CPU op has it: in the comparison with the threshold
        over = (shared / (area[rows, None] + area[later] - shared)).double() > iou_threshold
        over &= position[rows, None] < position[later]
        over &= alive[rows, None] & alive[later]
        if groups is not None:
            over &= groups[rows, None] == groups[later]
        i, j = over.nonzero(as_tuple=True)
        found_i.append(i + first)
        found_j.append(j + first)
    return torch.cat(found_i), torch.cat(found_j)


def nms_padded_reference(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor | None,
    valid: Tensor | None,
    iou_threshold: float,
    max_outputs: int,
) -> tuple[Tensor, Tensor]:
    """See ``nms_padded``."""
    num_images, num_boxes = scores.shape
    order = sort_by_score(scores)
    alive = torch.ones_like(order, dtype=torch.bool) if valid is None else valid.gather(1, order)
    keep = alive.clone()
    for image in range(num_images if num_boxes > 0 else 0):
        ranked = order[image]
        i, j = _overlapping_pairs(
            boxes[image, ranked].float(),
            groups[image, ranked] if groups is not None else None,
            alive[image],
            iou_threshold,
        )
        keep[image] &= survivors(i, j, num_boxes)
    return pack_survivors(order, keep, max_outputs)


def nms_padded_torchvision(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor | None,
    valid: Tensor | None,
    iou_threshold: float,
    max_outputs: int,
) -> tuple[Tensor, Tensor]:
    """``nms_padded`` by torchvision's op, one call for each image and group; asks the host how many stay."""
    from torchvision.ops import nms

    order = sort_by_score(scores)
    keep = torch.zeros_like(scores, dtype=torch.bool)
    for image in range(scores.shape[0]):
        rows = torch.arange(scores.shape[1], device=scores.device)
        if valid is not None:
            rows = rows[valid[image]]
        sizes = [rows.shape[0]]
        if groups is not None:
            by_group, position = groups[image, rows].sort(stable=True)
            rows = rows[position]
            sizes = by_group.unique_consecutive(return_counts=True)[1].tolist()
        # cut once into parts of one group each: no part is gathered on its own
        parts = zip(boxes[image, rows].float().split(sizes), scores[image, rows].float().split(sizes))
        first, kept = 0, []
        for size, (part_boxes, part_scores) in zip(sizes, parts):
            kept.append(nms(part_boxes, part_scores, iou_threshold).add_(first))
            first += size
        if kept:
            keep[image, rows[torch.cat(kept)]] = True
    return pack_survivors(order, keep.gather(1, order), max_outputs)
