"""Outlines of objects as polygons that people can correct by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from hydet.data.annotations.polygons import mask_to_polygons, signed_area, simplify_polygon

if TYPE_CHECKING:
    from hydet.runs.result import Result

__all__ = ["join_polygons", "mask_outlines"]

# Distance in pixels by which an outline may leave the pixel edges: it removes the steps of slanted edges.
_TOLERANCE = 1.0
_MIN_AREA = 4  # square pixels of a part of a mask; smaller ones are noise


def mask_outlines(result: Result) -> list[list[np.ndarray]]:
    """Return the outlines of each mask, largest part first; one list per object, empty for an empty mask.

    Masks are pasted one at a time.

    Returns:
        Polygons as ``(V, 2)`` float64 arrays of (x, y) in pixels.
    """
    return [_outlines(mask) for mask in result.iterate_masks()]


def _outlines(mask: Tensor) -> list[np.ndarray]:
    polygons = [polygon.reshape(-1, 2) for polygon in mask_to_polygons(mask.numpy())]
    polygons = [polygon for polygon in polygons if signed_area(polygon) >= _MIN_AREA] or polygons
    polygons.sort(key=signed_area, reverse=True)
    return [simplify_polygon(polygon, _TOLERANCE) for polygon in polygons]


def join_polygons(polygons: list[np.ndarray]) -> np.ndarray:
    """Return one ``(V, 2)`` polygon that covers several, joined by cuts of zero width."""
    joined = polygons[0]
    for polygon in polygons[1:]:
        joined = np.concatenate([joined, joined[:1], polygon, polygon[:1]])
    return joined
