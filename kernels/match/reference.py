"""Best ground truth of every anchor in plain torch, a tile of the overlaps at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["match_anchors_reference"]

# R anchors, G ground truths; they are compared a tile of about this many pairs at a time, T tiles of anchors.
PAIRS_PER_TILE = 1 << 17
TRUTHS_PER_TILE = 64


def _usable(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes as ``(4, N)`` rows and their areas; what has no finite area becomes empty, so it overlaps nothing."""
    boxes = boxes.to(torch.promote_types(boxes.dtype, torch.float32)).t()
    area = (boxes[2] - boxes[0]) * (boxes[3] - boxes[1])
    usable = area.isfinite()
    return torch.where(usable, boxes, 0).contiguous(), torch.where(usable, area, 0)


def _iou(truths: Tensor, truth_area: Tensor, anchors: Tensor, anchor_area: Tensor) -> Tensor:
    """Overlap of boxes ``(4, G, 1)`` with boxes ``(4, 1 or G, R)``, as ``(G, R)``; rounds as ``pairwise_iou`` does."""
    shared = (torch.minimum(truths[2], anchors[2]) - torch.maximum(truths[0], anchors[0])).clamp_(min=0)
    height = (torch.minimum(truths[3], anchors[3]) - torch.maximum(truths[1], anchors[1])).clamp_(min=0)
    shared *= height
    union = truth_area + anchor_area
    union -= shared
    return shared.div_(union.clamp_(min=torch.finfo(union.dtype).tiny))


def match_anchors_reference(
    anchors: Tensor,
    gt_boxes: Tensor,
    thresholds: Sequence[float],
    labels: Sequence[int],
    allow_low_quality_matches: bool,
) -> tuple[Tensor, Tensor]:
    """See ``match_anchors``. Keeps a tile of overlaps, and the best of each (tile, ground truth): ``(T, G)``."""
    num_anchors, num_truths = anchors.shape[0], gt_boxes.shape[0]
    matches = torch.zeros(num_anchors, dtype=torch.int64, device=anchors.device)
    if num_anchors == 0 or num_truths == 0:
        return matches, torch.full_like(matches, labels[0], dtype=torch.int8)
    boxes, area = _usable(anchors)
    truths, truth_area = _usable(gt_boxes)
    truths, truth_area = truths[:, :, None], truth_area[:, None]
    quality = torch.zeros(num_anchors, dtype=boxes.dtype, device=boxes.device)
    tile_size = min(PAIRS_PER_TILE // min(num_truths, TRUTHS_PER_TILE), num_anchors)
    num_tiles = -(-num_anchors // tile_size)
    tile_best = torch.zeros(num_tiles, num_truths, dtype=boxes.dtype, device=boxes.device)
    number = torch.arange(num_truths, device=boxes.device)[:, None]
    for tile in range(num_tiles):
        part = slice(tile * tile_size, (tile + 1) * tile_size)
        here, here_area = boxes[:, None, part], area[part]
        for first in range(0, num_truths, TRUTHS_PER_TILE):
            some = slice(first, first + TRUTHS_PER_TILE)
            iou = _iou(truths[:, some], truth_area[some], here, here_area)
            best = iou.amax(dim=0)
            # lowest index of those that reach the best; max(dim=0) would give it too, ten times slower
            which = torch.where(iou == best, number[some], num_truths).amin(dim=0)
            better = best > quality[part]
            matches[part] = torch.where(better, which, matches[part])
            torch.maximum(quality[part], best, out=quality[part])
            if allow_low_quality_matches:
                torch.amax(iou, dim=1, out=tile_best[tile, some])

    bounds = quality.new_tensor(thresholds)
    of_range = torch.tensor(labels, dtype=torch.int8, device=quality.device)
    match_labels = of_range[torch.bucketize(quality, bounds, right=True)]
    if allow_low_quality_matches:
        _add_low_quality(match_labels, tile_best, tile_size, boxes, area, truths, truth_area)
    return matches, match_labels


def _add_low_quality(
    match_labels: Tensor,
    tile_best: Tensor,
    tile_size: int,
    boxes: Tensor,
    area: Tensor,
    truths: Tensor,
    truth_area: Tensor,
) -> None:
    """Label 1 every anchor that no other beats for some ground truth, in place; looks only at the tiles it is in."""
    best = tile_best.amax(dim=0)
    tiles, which = ((tile_best == best) & (best > 0)).nonzero(as_tuple=True)
    at_once = max(1, PAIRS_PER_TILE // tile_size)
    for tile, truth in zip(tiles.split(at_once), which.split(at_once)):
        index = tile[:, None] * tile_size + torch.arange(tile_size, device=tile.device)
        inside = index < boxes.shape[1]
        index.clamp_(max=boxes.shape[1] - 1)
        iou = _iou(truths[:, truth], truth_area[truth], boxes[:, index], area[index])
        match_labels[index[(iou == best[truth, None]) & inside]] = 1
