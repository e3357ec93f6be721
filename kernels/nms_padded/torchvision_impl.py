"""Non-maximum suppression of upright boxes with torchvision's op, which takes one group of one image per call."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import nms

from hydet.kernels.nms_padded.overlap import PAIRS_PER_CHUNK, iou_exceeds
from hydet.kernels.nms_padded.ranking import pack_survivors, sort_by_score
from hydet.kernels.suppression.torch_impl import greedy_survivors

__all__ = ["forward_torchvision"]

# For groups of up to this many boxes, one comparison of all pairs costs less than a call of torchvision per group.
SMALL_GROUP = 64


def _without_groups(
    boxes: Tensor, scores: Tensor, iou_threshold: float, max_outputs: int
) -> tuple[Tensor, Tensor]:
    """Suppress the boxes of each image by a single call per image."""
    indices = scores.new_zeros(scores.shape[0], max_outputs, dtype=torch.int64)
    counts = []
    for image_indices, image_boxes, image_scores in zip(indices, boxes.float(), scores.float(), strict=True):
        best = nms(image_boxes, image_scores, iou_threshold)[:max_outputs]
        image_indices[: best.shape[0]] = best
        counts.append(best.shape[0])
    return indices, torch.tensor(counts, dtype=torch.int64, device=scores.device)


def _sort_by_group(order: Tensor, groups: Tensor | None, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """Sort valid boxes by image, then group, then score.

    Args:
        order: ``(B, N)`` indices of boxes by descending score.
        groups: ``(B, N)`` group of each box, or None for a single group per image.
        valid: ``(B, N)`` bool, or None if all boxes are valid.

    Returns:
        Positions of the sorted boxes in the flattened ``order``, and the number of boxes in each group of each image.
    """
    image = torch.arange(order.shape[0], device=order.device)[:, None].expand_as(order)
    if groups is None:
        group, position = torch.zeros_like(order), torch.arange(order.shape[1], device=order.device)
    else:
        group, position = groups.gather(1, order).sort(dim=1, stable=True)
    rows = (image * order.shape[1] + position).flatten()
    labels = torch.stack([image.flatten(), group.flatten()])
    if valid is not None:
        row_valid = valid.gather(1, order).flatten()[rows]
        rows, labels = rows[row_valid], labels[:, row_valid]
    is_first = (labels[:, 1:] != labels[:, :-1]).any(dim=0)
    group_number = [is_first.new_zeros(1), is_first.cumsum(0)] if rows.shape[0] > 0 else [rows]
    return rows, torch.cat(group_number).bincount()


def _suppress_small_groups(boxes: Tensor, first: Tensor, sizes: Tensor, iou_threshold: float) -> Tensor:
    """Return the positions of the kept boxes of several small groups, comparing all pairs of each group at once.

    Args:
        boxes: ``(N, 4)`` boxes of all groups, sorted by score within each group.
        first: ``(G,)`` position of the first box of each group.
        sizes: ``(G,)`` number of boxes of each group.
        iou_threshold: IoU threshold.
    """
    number = torch.arange(int(sizes.max()), device=boxes.device)
    in_group = number < sizes[:, None]  # (G, largest size)
    position = torch.where(in_group, first[:, None] + number, 0)
    coordinates = boxes[position].unbind(dim=2)
    mask = iou_exceeds(coordinates, coordinates, iou_threshold)
    mask &= number[:, None] < number
    mask &= in_group[:, None, :]  # boxes before a box of the group belong to the group too
    group, i, j = mask.nonzero(as_tuple=True)
    offset = group * number.shape[0]
    survivors = greedy_survivors(offset + i, offset + j, in_group.numel()).view_as(in_group)
    return position[in_group & survivors]


def forward_torchvision(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor | None,
    valid: Tensor | None,
    iou_threshold: float,
    max_outputs: int,
) -> tuple[Tensor, Tensor]:
    """Compute ``nms_padded``: one call per large group of an image, and all small groups together.

    Synchronizes with the host.
    """
    if groups is None and valid is None:
        return _without_groups(boxes, scores, iou_threshold, max_outputs)
    order = sort_by_score(scores)
    rows, sizes = _sort_by_group(order, groups, valid)
    sorted_boxes = boxes.gather(1, order[..., None].expand(-1, -1, 4)).flatten(0, 1)[rows].float()
    sorted_scores = scores.gather(1, order).flatten()[rows].float()
    first = sizes.cumsum(0) - sizes
    positions = [rows[:0]]
    is_large = sizes > SMALL_GROUP
    for start, size in zip(first[is_large].tolist(), sizes[is_large].tolist(), strict=True):
        group = slice(start, start + size)
        positions.append(nms(sorted_boxes[group], sorted_scores[group], iou_threshold) + start)
    small = (~is_large).nonzero().squeeze(1)
    # Groups of similar size follow each other, so there is little padding.
    small = small[sizes[small].argsort()]
    while small.shape[0] > 0:
        num_pairs = torch.arange(1, small.shape[0] + 1, device=sizes.device) * sizes[small].square()
        num_groups = max(1, int((num_pairs <= PAIRS_PER_CHUNK).sum()))
        batch, small = small[:num_groups], small[num_groups:]
        positions.append(_suppress_small_groups(sorted_boxes, first[batch], sizes[batch], iou_threshold))
    keep = torch.zeros(order.numel(), dtype=torch.bool, device=order.device)
    keep[rows[torch.cat(positions)]] = True
    return pack_survivors(order, keep.view_as(order), max_outputs)
