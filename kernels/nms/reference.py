"""Greedy suppression of upright boxes in plain torch, several images at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hydet.kernels.nms_rotated.reference import survivors

__all__ = ["nms_padded_reference", "nms_padded_torchvision", "pack_survivors", "sort_by_score"]

PAIRS_PER_CHUNK = 1 << 17
SMALL_GROUP = 64  # up to so many boxes, comparing all pairs at once costs less than a call for each group


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


def _exceed(a: Sequence[Tensor], b: Sequence[Tensor], iou_threshold: float) -> Tensor:
    """``(..., I, J)`` bool: whether boxes, both as four ``(..., I)`` or ``(..., J)`` coordinates, overlap by more."""
    a_x1, a_y1, a_x2, a_y2 = (v[..., :, None] for v in a)
    b_x1, b_y1, b_x2, b_y2 = (v[..., None, :] for v in b)
    shared = (torch.minimum(a_x2, b_x2) - torch.maximum(a_x1, b_x1)).clamp_(min=0)
    shared *= (torch.minimum(a_y2, b_y2) - torch.maximum(a_y1, b_y1)).clamp_(min=0)
    union = (a_x2 - a_x1) * (a_y2 - a_y1) + (b_x2 - b_x1) * (b_y2 - b_y1) - shared
    # float64 only where torchvision's CPU op has it: in the comparison with the threshold
    return (shared / union).double() > iou_threshold


def _overlapping_pairs(
    boxes: Tensor, groups: Tensor | None, alive: Tensor, iou_threshold: float
) -> tuple[Tensor, Tensor]:
    """Pairs (i, j), i before j, of one image's sorted boxes whose IoU is over the threshold."""
    position = torch.arange(boxes.shape[0], device=boxes.device)
    corners = boxes.unbind(dim=1)
    found_i, found_j = [], []
    rows_per_chunk = max(1, PAIRS_PER_CHUNK // max(1, boxes.shape[0]))
    for first in range(0, boxes.shape[0], rows_per_chunk):
        rows, later = slice(first, first + rows_per_chunk), slice(first, None)
        over = _exceed([v[rows] for v in corners], [v[later] for v in corners], iou_threshold)
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


def _groups_apart(order: Tensor, groups: Tensor | None, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """Positions in the flattened ranking, one group of one image after the other, the best first; and their numbers."""
    image = torch.arange(order.shape[0], device=order.device)[:, None].expand_as(order)
    if groups is None:
        group, position = torch.zeros_like(order), torch.arange(order.shape[1], device=order.device)
    else:
        group, position = groups.gather(1, order).sort(dim=1, stable=True)
    rows = (image * order.shape[1] + position).flatten()
    labels = torch.stack([image.flatten(), group.flatten()])
    if valid is not None:
        there = valid.gather(1, order).flatten()[rows]
        rows, labels = rows[there], labels[:, there]
    starts_anew = (labels[:, 1:] != labels[:, :-1]).any(dim=0)
    bounds = [starts_anew.new_zeros(1), starts_anew.cumsum(0)] if rows.shape[0] > 0 else [rows]
    return rows, torch.cat(bounds).bincount()


def _survivors_of_small_groups(boxes: Tensor, first: Tensor, sizes: Tensor, iou_threshold: float) -> Tensor:
    """Positions of the boxes that stay; each group is ``sizes`` ranked boxes from ``first`` on, all compared at once."""
    number = torch.arange(int(sizes.max()), device=boxes.device)
    there = number < sizes[:, None]  # (groups, most)
    position = torch.where(there, first[:, None] + number, 0)
    over = _exceed(boxes[position].unbind(dim=2), boxes[position].unbind(dim=2), iou_threshold)
    over &= number[:, None] < number
    over &= there[:, None, :]  # what comes before a box of the group is of the group too
    group, i, j = over.nonzero(as_tuple=True)
    base = group * number.shape[0]
    return position[there & survivors(base + i, base + j, there.numel()).view_as(there)]


def nms_padded_torchvision(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor | None,
    valid: Tensor | None,
    iou_threshold: float,
    max_outputs: int,
) -> tuple[Tensor, Tensor]:
    """``nms_padded`` by torchvision's op for each image and group, but small groups together; asks the host for sizes."""
    from torchvision.ops import nms

    if groups is None and valid is None:
        indices = scores.new_zeros(scores.shape[0], max_outputs, dtype=torch.int64)
        counts = []
        for own, own_boxes, own_scores in zip(indices, boxes.float(), scores.float(), strict=True):
            best = nms(own_boxes, own_scores, iou_threshold)[:max_outputs]
            own[: best.shape[0]] = best
            counts.append(best.shape[0])
        return indices, torch.tensor(counts, dtype=torch.int64, device=scores.device)
    order = sort_by_score(scores)
    rows, sizes = _groups_apart(order, groups, valid)
    ranked = boxes.gather(1, order[..., None].expand(-1, -1, 4)).flatten(0, 1)[rows].float()
    ranked_scores = scores.gather(1, order).flatten()[rows].float()
    first = sizes.cumsum(0) - sizes
    kept = [rows[:0]]
    for begin, size in zip(first[sizes > SMALL_GROUP].tolist(), sizes[sizes > SMALL_GROUP].tolist()):
        part = slice(begin, begin + size)
        kept.append(nms(ranked[part], ranked_scores[part], iou_threshold) + begin)
    small = (sizes <= SMALL_GROUP).nonzero().squeeze(1)
    small = small[sizes[small].argsort()]  # neighbours of about one size, so that little is padding
    while small.shape[0] > 0:
        num_pairs = torch.arange(1, small.shape[0] + 1, device=sizes.device) * sizes[small].square()
        count = max(1, int((num_pairs <= PAIRS_PER_CHUNK).sum()))
        some, small = small[:count], small[count:]
        kept.append(_survivors_of_small_groups(ranked, first[some], sizes[some], iou_threshold))
    keep = torch.zeros(order.numel(), dtype=torch.bool, device=order.device)
    keep[rows[torch.cat(kept)]] = True
    return pack_survivors(order, keep.view_as(order), max_outputs)
