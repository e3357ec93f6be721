"""Non-maximum suppression of rotated boxes in PyTorch, in blocks of boxes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from hydet.kernels.box_iou_rotated.candidates import (
    CIRCLE_TESTS_PER_CHUNK,
    PAIRS_PER_CHUNK,
    circles_meet,
    circumscribed_circles,
    list_pairs,
    may_exceed,
    meeting_pairs,
)
from hydet.kernels.box_iou_rotated.overlap import gather_columns, pair_iou, prepare
from hydet.kernels.chunks import chunks
from hydet.kernels.suppression.torch_impl import greedy_survivors

__all__ = ["forward_torch"]

FIRST_BLOCK = 32
# Computing the IoU of this many pairs takes as long as starting the ops that would rule some of them out.
FEW_PAIRS = 1024
# A matrix of pairs is crowded if more than one pair in CROWDED meets. It is then faster to test all than to list some.
CROWDED = 3
# The test of one listed pair takes as long as the test of this many entries of a matrix.
LISTING_COST = 8


def _select(i: Tensor, j: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pairs where ``mask`` is True."""
    position = mask.nonzero().squeeze(1)  # once for both, which is faster than indexing each with the mask
    return i.index_select(0, position), j.index_select(0, position)


def _meeting_pairs_in_groups(
    circles_a: Tensor, circles_b: Tensor, groups_a: Tensor, groups_b: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the pairs of circles that meet and belong to the same group.

    Tests the whole matrix of pairs, or, if most pairs belong to two groups, a list of the pairs within groups.
    """
    by_group = groups_b.argsort(stable=True)
    sorted_groups = groups_b[by_group]
    first = torch.searchsorted(sorted_groups, groups_a)
    counts = torch.searchsorted(sorted_groups, groups_a, right=True) - first
    ends = counts.cumsum(0)
    num_a, num_b = circles_a.shape[1], circles_b.shape[1]
    if num_a == 0 or LISTING_COST * int(ends[-1]) > num_a * num_b:
        yield from meeting_pairs(circles_a, circles_b, lambda rows: groups_a[rows, None] == groups_b)
        return
    device = circles_a.device
    for rows, num_before in chunks(ends, CIRCLE_TESTS_PER_CHUNK):
        i = torch.arange(rows.start, rows.stop, device=device).repeat_interleave(counts[rows])
        # Position of each pair in by_group: the start of the group, plus the number of the pair within its row.
        offset = first - (ends - counts)
        position = torch.arange(num_before, num_before + i.shape[0], device=device) + offset[i]
        j = by_group.index_select(0, position)
        meet = circles_meet(gather_columns(circles_a, i), gather_columns(circles_b, j)).nonzero().squeeze(1)
        for part in meet.split(PAIRS_PER_CHUNK):
            if part.shape[0] > 0:
                yield i[part], j[part]


def _candidate_pairs(
    boxes_a: Tensor,
    boxes_b: Tensor,
    circles_a: Tensor,
    circles_b: Tensor,
    groups: tuple[Tensor, Tensor] | None,
    iou_threshold: float,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the pairs of the same group that may exceed the threshold.

    Args:
        boxes_a: ``(6, I)`` prepared boxes.
        boxes_b: ``(6, J)`` prepared boxes.
        circles_a: ``(3, I)`` circles around ``boxes_a``.
        circles_b: ``(3, J)`` circles around ``boxes_b``.
        groups: ``(I,)`` and ``(J,)`` groups, or None for a single group.
        iou_threshold: IoU threshold.
    """
    num_pairs = boxes_a.shape[1] * boxes_b.shape[1]
    if groups is not None:
        meeting = _meeting_pairs_in_groups(circles_a, circles_b, *groups)
    elif num_pairs > CIRCLE_TESTS_PER_CHUNK:
        meeting = meeting_pairs(circles_a, circles_b)
    else:
        meet = circles_meet(circles_a[:, :, None], circles_b[:, None])
        if num_pairs > FEW_PAIRS and CROWDED * int(meet.count_nonzero()) > num_pairs:
            yield from list_pairs(meet & may_exceed(boxes_a[:, :, None], boxes_b[:, None], iou_threshold))
            return
        meeting = list_pairs(meet)
    for i, j in meeting:
        if i.shape[0] > FEW_PAIRS:
            mask = may_exceed(gather_columns(boxes_a, i), gather_columns(boxes_b, j), iou_threshold)
            i, j = _select(i, j, mask)
        yield i, j


def _overlapping_pairs(
    prepared: Tensor,
    circles: Tensor,
    groups: Tensor | None,
    better: Tensor,
    worse: Tensor,
    iou_threshold: float,
) -> tuple[Tensor, Tensor]:
    """Return the pairs of boxes of the same group whose IoU exceeds the threshold.

    Args:
        prepared: ``(6, N)`` all boxes, prepared.
        circles: ``(3, N)`` their circumscribed circles.
        groups: ``(N,)`` groups, or None for a single group.
        better: ``(I,)`` indices of boxes.
        worse: ``(J,)`` indices of boxes that rank behind all of ``better``, or ``better`` itself. In the latter case
            only pairs whose first box ranks before the second are returned.
        iou_threshold: IoU threshold.

    Returns:
        Positions in ``better`` and in ``worse``.
    """
    boxes_a, boxes_b = gather_columns(prepared, better), gather_columns(prepared, worse)
    candidates = _candidate_pairs(
        boxes_a,
        boxes_b,
        gather_columns(circles, better),
        gather_columns(circles, worse),
        (groups[better], groups[worse]) if groups is not None else None,
        iou_threshold,
    )
    pairs = [(better[:0], better[:0])]
    for i, j in candidates:
        if better is worse:
            i, j = _select(i, j, i < j)
        # Round to float32 as box_iou_rotated does, so that both agree on the pairs that exceed the threshold.
        iou = pair_iou(gather_columns(boxes_a, i), gather_columns(boxes_b, j)).float()
        pairs.append(_select(i, j, iou > iou_threshold))
    first, second = (torch.cat(part) for part in zip(*pairs, strict=True))
    return first, second


def forward_torch(boxes: Tensor, scores: Tensor, groups: Tensor | None, iou_threshold: float) -> Tensor:
    """Compute ``nms_rotated``; ``groups`` is None for a single group.

    Takes the best remaining boxes, a block at a time. A block first suppresses within itself; the boxes that it keeps
    then suppress all remaining ones. If few boxes survive, most pairs are never compared. If most survive, the blocks
    grow, so that there are few of them.
    """
    remaining = scores.argsort(descending=True, stable=True)
    prepared, circles = prepare(boxes), circumscribed_circles(boxes)
    keep, block_size = [remaining[:0]], FIRST_BLOCK
    while remaining.shape[0] > 0:
        block, remaining = remaining[:block_size], remaining[block_size:]
        i, j = _overlapping_pairs(prepared, circles, groups, block, block, iou_threshold)
        survivors = block[greedy_survivors(i, j, block.shape[0])]
        keep.append(survivors)
        if remaining.shape[0] == 0:
            break
        _, suppressed = _overlapping_pairs(prepared, circles, groups, survivors, remaining, iou_threshold)
        mask = torch.ones_like(remaining, dtype=torch.bool)
        mask[suppressed] = False
        remaining = remaining[mask]
        if 2 * survivors.shape[0] > block_size:
            block_size *= 4
    return torch.cat(keep)
