"""Greedy suppression of rotated boxes in plain torch."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from hydet.kernels.box_iou_rotated.reference import (
    CIRCLE_TESTS_PER_CHUNK,
    PAIRS_PER_CHUNK,
    circles,
    meeting_pairs,
    pair_iou,
    pick,
    prepare,
)
from torch import Tensor

__all__ = ["nms_rotated_reference", "survivors"]

FIRST_BLOCK = 16
LISTING_COSTS = 8  # circle tests of a table in the time of one of a list


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


def _meeting_pairs_in_groups(
    a: Tensor, b: Tensor, groups_a: Tensor, groups_b: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """``meeting_pairs`` of one group: from a table of all, or a list of those where most pairs are of two groups."""
    by_group = groups_b.argsort(stable=True)
    labels = groups_b[by_group]
    first = torch.searchsorted(labels, groups_a)
    counts = torch.searchsorted(labels, groups_a, right=True) - first
    ends = counts.cumsum(0)
    num_a, num_b = a.shape[1], b.shape[1]
    if num_a == 0 or LISTING_COSTS * int(ends[-1]) > num_a * num_b:
        yield from meeting_pairs(a, b, lambda rows: groups_a[rows, None] == groups_b)
        return
    begin = 0
    while begin < num_a:
        done = int(ends[begin - 1]) if begin > 0 else 0
        end = int(torch.searchsorted(ends, done + CIRCLE_TESTS_PER_CHUNK, right=True))
        rows = slice(begin, max(end, begin + 1))
        i = torch.arange(begin, begin + counts[rows].shape[0], device=a.device)
        i = i.repeat_interleave(counts[rows])
        # how far into its group, counted from where the rows before ended
        offset = first - (ends - counts)
        j = by_group.index_select(0, torch.arange(done, done + i.shape[0], device=a.device) + offset[i])
        ours, theirs = pick(a, i), pick(b, j)
        reach = (ours[2] + theirs[2]).square_()
        apart = (ours[0] - theirs[0]).square_().add_((ours[1] - theirs[1]).square_())
        meet = (apart <= reach).nonzero().squeeze(1)
        for part in meet.split(PAIRS_PER_CHUNK):
            if part.shape[0] > 0:
                yield i[part], j[part]
        begin = rows.stop


def _overlapping_pairs(
    prepared: Tensor,
    around: Tensor,
    groups: Tensor | None,
    better: Tensor,
    worse: Tensor,
    iou_threshold: float,
) -> tuple[Tensor, Tensor]:
    """Pairs of boxes of one group, one out of ``better`` and one out of ``worse``, over the threshold.

    ``prepared`` and ``around`` are all boxes, prepared, and their circles; ``better`` and ``worse`` are indices of
    boxes: the same ones, then only pairs with the better one first count, or others, all behind. The result is
    positions in them.
    """
    ours, theirs = pick(around, better), pick(around, worse)
    if groups is not None:
        meeting = _meeting_pairs_in_groups(ours, theirs, groups[better], groups[worse])
    elif better is worse:
        meeting = meeting_pairs(ours, theirs, lambda rows: better[rows, None] < worse)
    else:
        meeting = meeting_pairs(ours, theirs)
    pairs = [(better[:0], worse[:0])]
    for i, j in meeting:
        if groups is not None and better is worse:
            ordered = i < j
            i, j = i[ordered], j[ordered]
        # rounded as box_iou_rotated rounds, so that both agree on what exceeds the threshold
        over = pair_iou(pick(prepared, better[i]), pick(prepared, worse[j])).float() > iou_threshold
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
