"""Greedy suppression of rotated boxes in plain torch."""

from __future__ import annotations

import torch
from hydet.kernels.box_iou_rotated.reference import meeting_pairs, pair_iou, prepare
from torch import Tensor

__all__ = ["nms_rotated_reference", "survivors"]


def survivors(suppressor: Tensor, suppressed: Tensor, count: int) -> Tensor:
    """Who is left when each box removes the later boxes it overlaps, unless it was removed itself.

    Repeats "a box stays unless a staying box suppresses it" until nothing changes. After k rounds the first k
    boxes are final, so the fixed point is the greedy result; in practice a handful of rounds is enough, as many
    as the longest chain of suppressions.

    Args:
        suppressor: ``(E,)`` index of the better box of each overlapping pair.
        suppressed: ``(E,)`` index of the other; greater than its suppressor.
        count: number of boxes N.

    Returns:
        ``(N,)`` bool.
    """
    keep = torch.ones(count, dtype=torch.bool, device=suppressor.device)
    while True:
        now = torch.ones_like(keep)
        now[suppressed[keep[suppressor]]] = False
        if torch.equal(now, keep):
            return keep
        keep = now


def nms_rotated_reference(
    boxes: Tensor, scores: Tensor, groups: Tensor | None, iou_threshold: float
) -> Tensor:
    """See ``batched_nms_rotated``; ``groups`` None puts all boxes in one group."""
    order = scores.argsort(descending=True, stable=True)
    boxes = boxes[order]
    groups = groups[order] if groups is not None else None
    position = torch.arange(boxes.shape[0], device=boxes.device)

    def later_of_same_group(rows: slice) -> Tensor:
        mask = position[rows, None] < position
        return mask if groups is None else mask.logical_and_(groups[rows, None] == groups)

    prepared = prepare(boxes)
    pairs: list[tuple[Tensor, Tensor]] = []
    for i, j in meeting_pairs(boxes, boxes, also=later_of_same_group):
        # rounded as box_iou_rotated rounds, so that both agree on what exceeds the threshold
        iou = pair_iou(prepared.index_select(1, i), prepared.index_select(1, j)).float()
        over = iou > iou_threshold
        pairs.append((i[over], j[over]))
    if not pairs:
        return order
    suppressor, suppressed = (torch.cat(part) for part in zip(*pairs))
    return order[survivors(suppressor, suppressed, boxes.shape[0])]
