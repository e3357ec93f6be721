"""Greedy suppression of rotated boxes in plain torch."""

from __future__ import annotations

import torch
from hydet.kernels.box_iou_rotated.reference import circles, meeting_pairs, pair_iou, pick, prepare
from torch import Tensor

__all__ = ["nms_rotated_reference", "survivors"]

FIRST_BLOCK = 16


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


def _overlapping_pairs(
    prepared: Tensor,
    around: Tensor,
    groups: Tensor | None,
    better: Tensor,
    worse: Tensor,
    iou_threshold: float,
) -> tuple[Tensor, Tensor]:
    """Pairs of boxes of one group, one out of ``better`` and one out of ``worse``, over the threshold.

    ``prepared`` and ``around`` are all boxes, prepared, and their circles; ``better`` and ``worse`` are indices of boxes: the same
    ones, then only pairs with the better one first count, or others, all behind. The result is positions in them.
    """

    def of_one_group(rows: slice) -> Tensor:
        # the better of two boxes has the smaller index
        mask = better[rows, None] < worse
        return mask if groups is None else mask.logical_and_(groups[better[rows], None] == groups[worse])

    ours, theirs = pick(prepared, better), pick(prepared, worse)
    unconditional = groups is None and better is not worse
    pairs = [(better[:0], worse[:0])]
    also = None if unconditional else of_one_group
    for i, j in meeting_pairs(pick(around, better), pick(around, worse), also):
        # rounded as box_iou_rotated rounds, so that both agree on what exceeds the threshold
        over = pair_iou(pick(ours, i), pick(theirs, j)).float() > iou_threshold
        pairs.append((i[over], j[over]))
    first, second = (torch.cat(part) for part in zip(*pairs))
    return first, second


def nms_rotated_reference(
    boxes: Tensor, scores: Tensor, groups: Tensor | None, iou_threshold: float
) -> Tensor:
    """See ``batched_nms_rotated``; ``groups`` None puts all boxes in one group.

    Takes the best boxes that are left, a block at a time: settles them among themselves, then lets those that stay
    suppress the rest. Where few stay, most pairs are never compared; where most stay, the blocks grow, so that
    there are few of them.
    """
    order = scores.argsort(descending=True, stable=True)
    boxes = boxes[order]
    groups = groups[order] if groups is not None else None
    prepared, around = prepare(boxes), circles(boxes)
    left = torch.arange(boxes.shape[0], device=boxes.device)
    kept, size = [left[:0]], FIRST_BLOCK
    while True:
        block, left = left[:size], left[size:]
        i, j = _overlapping_pairs(prepared, around, groups, block, block, iou_threshold)
        stay = block[survivors(i, j, block.shape[0])]
        kept.append(stay)
        if left.shape[0] == 0:
            break
        _, gone = _overlapping_pairs(prepared, around, groups, stay, left, iou_threshold)
        still = torch.ones_like(left, dtype=torch.bool)
        still[gone] = False
        left = left[still]
        if 2 * stay.shape[0] > size:
            size *= 4
    return order[torch.cat(kept)]
