"""Matching of anchors in PyTorch, one tile of the matrix of IoUs at a time.

R anchors, G ground-truth boxes, T tiles of anchors.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["forward_torch"]

PAIRS_PER_TILE = 1 << 17  # temporaries of this size stay in the cache
GT_BOXES_PER_TILE = 64


def _rows_and_areas(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Return boxes as ``(4, N)`` rows, and their ``(N,)`` areas.

    Boxes without a finite area become empty, so they overlap nothing.
    """
    boxes = boxes.to(torch.promote_types(boxes.dtype, torch.float32)).t()
    area = (boxes[2] - boxes[0]) * (boxes[3] - boxes[1])
    valid = area.isfinite()
    return torch.where(valid, boxes, 0).contiguous(), torch.where(valid, area, 0)


def _iou(gt_boxes: Tensor, gt_area: Tensor, anchors: Tensor, anchor_area: Tensor) -> Tensor:
    """Return the ``(G, R)`` IoU of ``(4, G, 1)`` and ``(4, 1 or G, R)`` boxes; rounds as ``pairwise_iou`` does."""
    intersection = (torch.minimum(gt_boxes[2], anchors[2]) - torch.maximum(gt_boxes[0], anchors[0])).clamp_(
        min=0
    )
    height = (torch.minimum(gt_boxes[3], anchors[3]) - torch.maximum(gt_boxes[1], anchors[1])).clamp_(min=0)
    intersection *= height
    union = gt_area + anchor_area
    union -= intersection
    return intersection.div_(union.clamp_(min=torch.finfo(union.dtype).tiny))


def forward_torch(
    anchors: Tensor,
    gt_boxes: Tensor,
    thresholds: Sequence[float],
    labels: Sequence[int],
    allow_low_quality_matches: bool,
) -> tuple[Tensor, Tensor]:
    """Compute ``match_anchors``. Holds one tile of IoUs, and the ``(T, G)`` best IoU per tile and ground truth."""
    num_anchors, num_gt = anchors.shape[0], gt_boxes.shape[0]
    matches = torch.zeros(num_anchors, dtype=torch.int64, device=anchors.device)
    if num_anchors == 0 or num_gt == 0:
        return matches, torch.full_like(matches, labels[0], dtype=torch.int8)
    anchor_rows, anchor_area = _rows_and_areas(anchors)
    gt_rows, gt_area = _rows_and_areas(gt_boxes)
    gt_rows, gt_area = gt_rows[:, :, None], gt_area[:, None]
    best_iou = torch.zeros(num_anchors, dtype=anchor_rows.dtype, device=anchors.device)
    tile_size = min(PAIRS_PER_TILE // min(num_gt, GT_BOXES_PER_TILE), num_anchors)
    num_tiles = -(-num_anchors // tile_size)
    best_iou_in_tile = torch.zeros(num_tiles, num_gt, dtype=anchor_rows.dtype, device=anchors.device)
    gt_index = torch.arange(num_gt, device=anchors.device)[:, None]
    for tile in range(num_tiles):
        columns = slice(tile * tile_size, (tile + 1) * tile_size)
        tile_rows, tile_area = anchor_rows[:, None, columns], anchor_area[columns]
        for first in range(0, num_gt, GT_BOXES_PER_TILE):
            rows = slice(first, first + GT_BOXES_PER_TILE)
            iou = _iou(gt_rows[:, rows], gt_area[rows], tile_rows, tile_area)
            best = iou.amax(dim=0)
            # The lowest index that reaches the best IoU. max(dim=0) would return it too, but is ten times slower.
            best_index = torch.where(iou == best, gt_index[rows], num_gt).amin(dim=0)
            is_better = best > best_iou[columns]
            matches[columns] = torch.where(is_better, best_index, matches[columns])
            torch.maximum(best_iou[columns], best, out=best_iou[columns])
            if allow_low_quality_matches:
                torch.amax(iou, dim=1, out=best_iou_in_tile[tile, rows])

    bounds = best_iou.new_tensor(thresholds)
    label_of_range = torch.tensor(labels, dtype=torch.int8, device=best_iou.device)
    match_labels = label_of_range[torch.bucketize(best_iou, bounds, right=True)]
    if allow_low_quality_matches:
        _label_low_quality_matches(
            match_labels, best_iou_in_tile, tile_size, anchor_rows, anchor_area, gt_rows, gt_area
        )
    return matches, match_labels


def _label_low_quality_matches(
    match_labels: Tensor,
    best_iou_in_tile: Tensor,
    tile_size: int,
    anchor_rows: Tensor,
    anchor_area: Tensor,
    gt_rows: Tensor,
    gt_area: Tensor,
) -> None:
    """Set the label of the best anchors of each ground truth to 1, in place. Visits only the tiles that contain one."""
    best_iou = best_iou_in_tile.amax(dim=0)
    tiles, gt_indices = ((best_iou_in_tile == best_iou) & (best_iou > 0)).nonzero(as_tuple=True)
    tiles_per_step = max(1, PAIRS_PER_TILE // tile_size)
    for tile, gt in zip(tiles.split(tiles_per_step), gt_indices.split(tiles_per_step), strict=True):
        index = tile[:, None] * tile_size + torch.arange(tile_size, device=tile.device)
        in_range = index < anchor_rows.shape[1]  # the last tile may be shorter
        index.clamp_(max=anchor_rows.shape[1] - 1)
        iou = _iou(gt_rows[:, gt], gt_area[gt], anchor_rows[:, index], anchor_area[index])
        match_labels[index[(iou == best_iou[gt, None]) & in_range]] = 1
