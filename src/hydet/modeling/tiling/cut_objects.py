"""Objects that the border of a tile has cut: find the other parts, or the complete detection, in neighboring tiles.

N detections of all tiles of one image.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Fragments", "find_fragments", "is_cut"]

# A detection counts as cut if it comes this close to the border of its tile, as a fraction of the tile's side: boxes of
# cut objects rarely end exactly at the border.
BORDER = 0.01
# Elements of a table of cut detections by all detections that exist at a time; bounds memory for thousands of them.
PAIRS_AT_ONCE = 1 << 20


class Fragments(NamedTuple):
    """Detections that show the same object.

    Attributes:
        absorbed: (cut, complete) pairs of indices: the second detection shows the whole object.
        groups: indices of cut detections that together show one object.
    """

    absorbed: list[tuple[int, int]]
    groups: list[list[int]]


def is_cut(boxes: Tensor, tiles: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Return ``(N,)`` bool: True if a detection touches a border of its tile inside the image.

    Args:
        boxes: ``(N, 4)`` in the frame of the image.
        tiles: ``(N, 4)`` tile of each box.
        image_size: (height, width).
    """
    height, width = image_size
    margin = ((tiles[:, 2:] - tiles[:, :2]) * BORDER).clamp(min=1)  # (N, 2)
    near = (boxes[:, :2] <= tiles[:, :2] + margin) & (tiles[:, :2] > 0)
    far = (boxes[:, 2:] >= tiles[:, 2:] - margin) & (tiles[:, 2:] < tiles.new_tensor([width, height]))
    return (near | far).any(dim=1)


def find_fragments(
    boxes: Tensor, classes: Tensor, tile_indices: Tensor, tiles: Tensor, cut: Tensor, *, match_thresh: float
) -> Fragments:
    """Find the detections that show the same object as a cut one.

    Two detections of a class match if their IoU exceeds ``match_thresh`` once each of them is reduced to what the tile
    of the other one can see of it, for a tile sees nothing beyond its border. Only the tile of a cut detection limits
    its partner in this way: a complete detection claims that the object ends where its box ends.

    A cut detection belongs to the complete one that matches best. If there is none, it joins the cut detections of other
    tiles for which it is, mutually, the best match.

    Args:
        boxes: ``(N, 4)`` in the frame of the image.
        classes: ``(N,)``.
        tile_indices: ``(N,)`` index of each tile.
        tiles: ``(N, 4)`` tile of each box.
        cut: ``(N,)`` bool; see ``is_cut``.
        match_thresh: IoU above which two detections match.
    """
    rows, columns, overlaps = _matches(boxes, classes, tile_indices, tiles, cut, match_thresh)
    is_complete = (~cut).tolist()
    best_complete: dict[int, tuple[float, int]] = {}
    best_cut: dict[
        tuple[int, int], tuple[float, int]
    ] = {}  # (detection, tile) -> (IoU, detection of that tile)
    tile_of = tile_indices.tolist()
    for i, j, overlap in zip(rows, columns, overlaps, strict=True):
        if is_complete[j]:
            best_complete[i] = max(best_complete.get(i, (0.0, -1)), (overlap, j))
        else:
            key = (i, tile_of[j])
            best_cut[key] = max(best_cut.get(key, (0.0, -1)), (overlap, j))
    pairs = [
        (i, j)
        for (i, _), (_, j) in best_cut.items()
        if i < j
        and best_cut.get((j, tile_of[i]), (0.0, -1))[1] == i
        and i not in best_complete
        and j not in best_complete
    ]
    return Fragments([(i, j) for i, (_, j) in best_complete.items()], _connect(pairs))


def _matches(
    boxes: Tensor, classes: Tensor, tile_indices: Tensor, tiles: Tensor, cut: Tensor, match_thresh: float
) -> tuple[list[int], list[int], list[float]]:
    """Return cut detections, matching detections of other tiles, and the IoU of each pair."""
    rows: list[int] = []
    columns: list[int] = []
    overlaps: list[float] = []
    step = max(1, PAIRS_AT_ONCE // max(1, boxes.shape[0]))
    for some in cut.nonzero().flatten().split(step):
        # (n, 1, 4) and (1, N, 4) -> (n, N, 4): each box as the tile of the other one sees it.
        seen_by_other = _intersect(boxes[some, None], tiles[None])
        a = torch.where(cut[None, :, None], seen_by_other, boxes[some, None])
        b = _intersect(boxes[None], tiles[some, None])
        iou = _paired_iou(a, b)
        same = (classes[some, None] == classes[None]) & (tile_indices[some, None] != tile_indices[None])
        i, j = (same & (iou > match_thresh)).nonzero(as_tuple=True)
        rows += some[i].tolist()
        columns += j.tolist()
        overlaps += iou[i, j].tolist()
    return rows, columns, overlaps


def _intersect(a: Tensor, b: Tensor) -> Tensor:
    """Return the intersections of ``(..., 4)`` boxes; negative sides if there is none."""
    near, far = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    return torch.cat([near, far], dim=-1)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(dim=-1)


def _paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the IoU of ``(..., 4)`` boxes in the same place of both tensors; 0 for empty boxes."""
    intersection = _area(_intersect(a, b))
    return intersection / (_area(a) + _area(b) - intersection).clamp(min=1e-6)


def _connect(pairs: list[tuple[int, int]]) -> list[list[int]]:
    """Return the connected components of a graph with these edges."""
    group_of: dict[int, list[int]] = {}
    for i, j in pairs:
        a, b = group_of.setdefault(i, [i]), group_of.setdefault(j, [j])
        if a is not b:
            a.extend(b)
            for k in b:
                group_of[k] = a
    return list({id(group): sorted(group) for group in group_of.values()}.values())
