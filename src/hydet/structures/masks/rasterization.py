"""Polygons to bitmaps, with the rasterizer of the COCO tools."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from faster_coco_eval.core import mask as coco_mask
from torch import Tensor

__all__ = [
    "Polygons",
    "polygons_to_bitmask",
    "rasterize_objects",
    "rasterize_polygons_within_box",
    "scale_into_box",
]

# One object: flat float64 arrays (x0, y0, x1, y1, ...) whose union is its mask.
Polygons = list[np.ndarray]
_MIN_SIDE = 0.1  # pixels; keeps the scale of a degenerate box finite


def polygons_to_bitmask(polygons: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """Rasterize the union of polygons as COCO does.

    Args:
        polygons: flat ``(x0, y0, x1, y1, ...)`` arrays in pixels; an empty list gives an empty mask.
        height: height of the mask in pixels.
        width: width of the mask in pixels.

    Returns:
        ``(height, width)`` bool array.

    Raises:
        ValueError: if a polygon has fewer than three points.
    """
    mask: np.ndarray = rasterize_objects([polygons], height, width)[0]
    return mask


def rasterize_polygons_within_box(polygons: Sequence[np.ndarray], box: np.ndarray, mask_size: int) -> Tensor:
    """Rasterize the part of the polygons inside a box onto a square grid that spans the box.

    Args:
        polygons: flat ``(x0, y0, x1, y1, ...)`` arrays in pixels; not modified.
        box: ``(x1, y1, x2, y2)`` in pixels; sides shorter than 0.1 are treated as 0.1.
        mask_size: side of the grid.

    Returns:
        ``(mask_size, mask_size)`` bool tensor.

    Source: the training targets of He et al. 2017 (arXiv:1703.06870), section 3.1.
    """
    scaled = scale_into_box(polygons, np.asarray(box), mask_size)
    return torch.from_numpy(rasterize_objects([scaled], mask_size, mask_size)[0])


def scale_into_box(polygons: Sequence[np.ndarray], box: np.ndarray, mask_size: int) -> Polygons:
    """Map polygons into the frame in which ``box`` is ``mask_size`` wide and high."""
    scale = (mask_size / np.maximum(box[2:] - box[:2], _MIN_SIDE)).astype(np.float64)
    points = (np.asarray(polygon, dtype=np.float64).reshape(-1, 2) for polygon in polygons)
    return [((xy - box[:2]) * scale).reshape(-1) for xy in points]


def rasterize_objects(objects: Sequence[Sequence[np.ndarray]], height: int, width: int) -> np.ndarray:
    """Rasterize N objects, each a union of polygons, into an ``(N, height, width)`` bool array.

    Raises:
        ValueError: if a polygon has fewer than three points.
    """
    flat = [
        np.asarray(polygon, dtype=np.float64).reshape(-1).tolist() for polygon in itertools.chain(*objects)
    ]
    shortest = min((len(numbers) for numbers in flat), default=6)
    if shortest < 6:  # the rasterizer would read four numbers as a box
        raise ValueError(f"a polygon has at least three points (6 numbers), got {shortest} numbers")
    # One call encodes all polygons; run-length codes are then merged per object.
    codes = iter(coco_mask.frPyObjects(flat, height, width) if flat else [])
    masks = np.zeros((len(objects), height, width), dtype=bool)
    nonempty, object_codes = [], []
    for i, polygons in enumerate(objects):
        polygon_codes = list(itertools.islice(codes, len(polygons)))
        if polygon_codes:
            nonempty.append(i)
            object_codes.append(
                polygon_codes[0] if len(polygon_codes) == 1 else coco_mask.merge(polygon_codes)
            )
    if nonempty:
        decoded = coco_mask.decode(object_codes)  # (height, width, n)
        masks[nonempty] = decoded.transpose(2, 0, 1)  # -> (n, height, width)
    return masks
