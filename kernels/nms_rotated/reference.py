"""Greedy suppression of rotated boxes in plain torch."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from hydet.kernels.box_iou_rotated.reference import (
    CIRCLE_TESTS_PER_CHUNK,
    PAIRS_PER_CHUNK,
    circles,
    circles_meet,
    listed,
    may_exceed,
    meeting_pairs,
    pair_iou,
    pick,
    prepare,
)
from hydet.kernels.chunks import chunks

__all__ = ["nms_rotated_reference", "survivors"]

FIRST_BLOCK = 32
FEW_PAIRS = 1024  # so many are clipped in the time that it takes to ask which of them need it
CROWDED = 3  # where of so many pairs one meets
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
        now[suppressed.masked_select(keep.index_select(0, suppressor))] = False
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
    for rows, done in chunks(ends, CIRCLE_TESTS_PER_CHUNK):
        i = torch.arange(rows.start, rows.stop, device=a.device).repeat_interleave(counts[rows])
        # how far into its group, counted from where the rows before ended
        offset = first - (ends - counts)
        j = by_group.index_select(0, torch.arange(done, done + i.shape[0], device=a.device) + offset[i])
        meet = circles_meet(pick(a, i), pick(b, j)).nonzero().squeeze(1)
        for part in meet.split(PAIRS_PER_CHUNK):
            if part.shape[0] > 0:
                yield i[part], j[part]


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
    boxes, others = pick(prepared, better), pick(prepared, worse)
    candidates = _likely_pairs(
        boxes,
        others,
        pick(around, better),
        pick(around, worse),
        (groups[better], groups[worse]) if groups is not None else None,
        iou_threshold,
    )
    pairs = [(better[:0], better[:0])]
    for i, j in candidates:
        if better is worse:
            i, j = _both(i, j, i < j)
        # rounded as box_iou_rotated rounds, so that both agree on what exceeds the threshold
        iou = pair_iou(pick(boxes, i), pick(others, j)).float()
        pairs.append(_both(i, j, iou > iou_threshold))
    first, second = (torch.cat(part) for part in zip(*pairs))
    return first, second


def _likely_pairs(
    boxes: Tensor,
    others: Tensor,
    ours: Tensor,
    theirs: Tensor,
    groups: tuple[Tensor, Tensor] | None,
    iou_threshold: float,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of one group that may exceed the threshold, from prepared boxes and their circles ``ours`` and ``theirs``."""
    size = boxes.shape[1] * others.shape[1]
    if groups is not None:
        meeting = _meeting_pairs_in_groups(ours, theirs, *groups)
    elif size > CIRCLE_TESTS_PER_CHUNK:
        meeting = meeting_pairs(ours, theirs)
    else:
        meet = circles_meet(ours[:, :, None], theirs[:, None])
        if size > FEW_PAIRS and CROWDED * int(meet.count_nonzero()) > size:
            # asking all of a table takes less time than listing those that meet
            yield from listed(meet & may_exceed(boxes[:, :, None], others[:, None], iou_threshold))
            return
        meeting = listed(meet)
    for i, j in meeting:
        if i.shape[0] > FEW_PAIRS:
            i, j = _both(i, j, may_exceed(pick(boxes, i), pick(others, j), iou_threshold))
        yield i, j


def _both(i: Tensor, j: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    where = mask.nonzero().squeeze(1)  # once for both, which is faster than indexing by the mask
    return i.index_select(0, where), j.index_select(0, where)


def nms_rotated_reference(
    boxes: Tensor, scores: Tensor, groups: Tensor | None, iou_threshold: float
) -> Tensor:
    """See ``batched_nms_rotated``; ``groups`` None puts all boxes in one group.

    Takes the best boxes that are left, a block at a time: settles them among themselves, then lets those that stay
    suppress the rest. Where few stay, most pairs are never compared; where most stay, the blocks grow, so that
    there are few of them.
    """
    left = scores.argsort(descending=True, stable=True)
    prepared, around = prepare(boxes), circles(boxes)
    kept, size = [left[:0]], FIRST_BLOCK
    while left.shape[0] > 0:
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
    return torch.cat(kept)
