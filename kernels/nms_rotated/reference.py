"""Greedy suppression of rotated boxes in plain torch."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from hydet.kernels.box_iou_rotated.reference import (
    CIRCLE_TESTS_PER_CHUNK,
    PAIRS_PER_CHUNK,
    circles,
    may_exceed,
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
    prepared: Tensor, around: Tensor, groups: Tensor | None, size: int, iou_threshold: float
) -> tuple[Tensor, Tensor]:
    """Pairs over the threshold, and of one group, of one of the first ``size`` boxes and one behind it.

    ``prepared`` and ``around`` are all boxes that are left, prepared, and their circles; best ones first.
    """
    if groups is not None:
        meeting = _meeting_pairs_in_groups(around[:, :size], around, groups[:size], groups)
    else:
        place = torch.arange(around.shape[1], device=around.device)
        meeting = meeting_pairs(around[:, :size], around, lambda rows: place[:size][rows, None] < place)
    pairs = [(prepared.new_empty(0, dtype=torch.int64),) * 2]
    for i, j in meeting:
        if groups is not None:
            ordered = (i < j).nonzero().squeeze(1)
            i, j = i.index_select(0, ordered), j.index_select(0, ordered)
        likely = may_exceed(pick(prepared, i), pick(prepared, j), iou_threshold).nonzero().squeeze(1)
        i, j = i.index_select(0, likely), j.index_select(0, likely)
        # rounded as box_iou_rotated rounds, so that both agree on what exceeds the threshold
        over = (pair_iou(pick(prepared, i), pick(prepared, j)).float() > iou_threshold).nonzero().squeeze(1)
        pairs.append((i.index_select(0, over), j.index_select(0, over)))
    first, second = (torch.cat(part) for part in zip(*pairs))
    return first, second


def nms_rotated_reference(
    boxes: Tensor, scores: Tensor, groups: Tensor | None, iou_threshold: float
) -> Tensor:
    """See ``batched_nms_rotated``; ``groups`` None puts all boxes in one group.

    Takes the best boxes that are left, a block at a time, compares them with all behind them, settles them among
    themselves, and lets those that stay suppress the rest. Where few stay, most pairs are never compared; where
    most stay, the blocks grow, so that there are few of them.
    """
    left = scores.argsort(descending=True, stable=True)
    prepared, around = prepare(boxes), circles(boxes)
    kept, size = [left[:0]], FIRST_BLOCK
    while left.shape[0] > 0:
        i, j = _overlapping_pairs(
            pick(prepared, left),
            pick(around, left),
            groups[left] if groups is not None else None,
            size,
            iou_threshold,
        )
        block = left[:size]
        inside = (j < size).nonzero().squeeze(1)
        stay = survivors(i.index_select(0, inside), j.index_select(0, inside), block.shape[0])
        kept.append(block[stay])
        still = torch.ones_like(left, dtype=torch.bool)
        still[:size] = False
        still[j.masked_select(stay.index_select(0, i))] = False
        left = left[still]
        if 2 * kept[-1].shape[0] > size:
            size *= 2
    return torch.cat(kept)
