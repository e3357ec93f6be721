"""Rotated boxes from the shapes that annotation tools write: turned rectangles and polygons of four points.

A rotated box is ``(cx, cy, w, h, degrees)``: center and sides in pixels, and the rotation in degrees counterclockwise on
screen, where y points down.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

from hydet.data.coco.json_values import are_finite, to_number
from hydet.structures.box_ops import wrap_angles

__all__ = [
    "RotatedBox",
    "box_around_points",
    "corners_of",
    "cvat_rotation",
    "is_upright",
    "quadrilateral_of",
    "smallest_rotated_box",
]

RotatedBox = tuple[float, float, float, float, float]

_TOLERANCE = 1e-3  # relative to the sides; coordinates in files are rounded


def quadrilateral_of(segmentation: object) -> Sequence[float] | None:
    """Return the eight numbers of a ``segmentation`` that is one polygon of four points, or None."""
    if isinstance(segmentation, list) and len(segmentation) == 1:
        segmentation = segmentation[0]
    if not isinstance(segmentation, list) or len(segmentation) not in (8, 10) or not are_finite(segmentation):
        return None
    if len(segmentation) == 10:  # a closed polygon repeats its first point
        return segmentation[:8] if segmentation[:2] == segmentation[8:] else None
    return segmentation


def is_upright(points: Sequence[float]) -> bool:
    """Return True if four points are the corners of an upright rectangle in order."""
    x, y = points[0::2], points[1::2]
    tolerance = _TOLERANCE * (max(x) - min(x) + max(y) - min(y))
    shapes = ((x, y), (y, x))
    return any(
        abs(a[0] - a[1]) <= tolerance
        and abs(a[2] - a[3]) <= tolerance
        and abs(b[1] - b[2]) <= tolerance
        and abs(b[3] - b[0]) <= tolerance
        for a, b in shapes
    )


def smallest_rotated_box(points: Sequence[float]) -> RotatedBox | None:
    """Return the smallest rotated box around points.

    Args:
        points: x and y of at least three points, alternating. The first two points define the width if possible.

    Returns:
        The box with an angle in [-90, 90), or None if it would have no area.
    """
    pairs = list(zip(points[0::2], points[1::2]))
    best: RotatedBox | None = None
    # The smallest rectangle has a side along an edge of the convex hull, and each edge joins two of the points.
    for (x0, y0), (x1, y1) in combinations(pairs, 2):
        length = math.hypot(x1 - x0, y1 - y0)
        if length == 0:
            continue
        ux, uy = (x1 - x0) / length, (y1 - y0) / length
        along = [x * ux + y * uy for x, y in pairs]
        across = [y * ux - x * uy for x, y in pairs]
        w, h = max(along) - min(along), max(across) - min(across)
        if best is None or w * h < best[2] * best[3] * (1 - _TOLERANCE):
            a, b = (max(along) + min(along)) / 2, (max(across) + min(across)) / 2
            degrees = math.degrees(math.atan2(-uy, ux))
            best = (a * ux - b * uy, a * uy + b * ux, w, h, (degrees + 90) % 180 - 90)
    return best if best is not None and best[2] > 0 and best[3] > 0 else None


def corners_of(box: RotatedBox) -> list[float]:
    """Return x and y of the four corners of a rotated box, alternating."""
    cx, cy, w, h, degrees = box
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = []
    for a, b in ((-w / 2, -h / 2), (w / 2, -h / 2), (w / 2, h / 2), (-w / 2, h / 2)):
        corners += [cx + a * cos + b * sin, cy - a * sin + b * cos]
    return corners


def box_around_points(points: Sequence[float]) -> tuple[float, float, float, float]:
    """Return the upright (x, y, w, h) box around points, x and y alternating."""
    x, y = points[0::2], points[1::2]
    return min(x), min(y), max(x) - min(x), max(y) - min(y)


def cvat_rotation(attributes: object) -> float:
    """Return the rotation in degrees counterclockwise that CVAT writes into ``attributes``, 0 if there is none.

    CVAT's ``bbox`` is the box before its clockwise rotation about its center.
    """
    rotation = to_number(attributes.get("rotation")) if isinstance(attributes, Mapping) else None
    return 0.0 if rotation is None else wrap_angles(-rotation)
