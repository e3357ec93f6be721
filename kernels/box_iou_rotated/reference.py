"""Definition of ``box_iou_rotated``: clip one box by the sides of the other, for one pair at a time."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["forward_reference"]

Box = list[float]  # cx, cy, w, h, degrees counter-clockwise
Point = tuple[float, float]


def _corners(box: Box, origin: Box) -> list[Point]:
    """Return the four corners of a box relative to the center of ``origin``, in the order of rotation."""
    cx, cy, width, height, angle = box
    cos, sin = math.cos(math.radians(angle % 360)), math.sin(math.radians(angle % 360))
    return [
        (
            cx - origin[0] + cos * u * width / 2 + sin * v * height / 2,
            cy - origin[1] - sin * u * width / 2 + cos * v * height / 2,
        )
        for u, v in ((-1, -1), (1, -1), (1, 1), (-1, 1))
    ]


def _clip(polygon: list[Point], start: Point, end: Point) -> list[Point]:
    """Return the part of a convex polygon on the inner side of the line through ``start`` and ``end``."""
    (x1, y1), (x2, y2) = start, end
    side = [(x2 - x1) * (y - y1) - (y2 - y1) * (x - x1) for x, y in polygon]  # >= 0 inside
    clipped = []
    for k, (point, distance) in enumerate(zip(polygon, side, strict=True)):
        next_k = (k + 1) % len(polygon)
        next_point, next_distance = polygon[next_k], side[next_k]
        if distance >= 0:
            clipped.append(point)
        if (distance >= 0) != (next_distance >= 0):
            t = distance / (distance - next_distance)
            clipped.append(
                (point[0] + t * (next_point[0] - point[0]), point[1] + t * (next_point[1] - point[1]))
            )
    return clipped


def _area(polygon: list[Point]) -> float:
    """Return the area of a polygon (shoelace formula)."""
    twice = sum(p[0] * q[1] - q[0] * p[1] for p, q in zip(polygon, polygon[1:] + polygon[:1], strict=True))
    return abs(twice) / 2


def _iou(a: Box, b: Box) -> float:
    if not all(math.isfinite(value) for value in a + b) or min(a[2], a[3], b[2], b[3]) <= 0:
        return 0.0
    # Relative to the center of b, boxes far from the origin lose no digits.
    polygon, sides = _corners(a, b), _corners(b, b)
    for start, end in zip(sides, sides[1:] + sides[:1], strict=True):
        polygon = _clip(polygon, start, end)
    intersection = _area(polygon)
    return intersection / (a[2] * a[3] + b[2] * b[3] - intersection)


def forward_reference(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Compute ``box_iou_rotated`` in Python floats."""
    rows = [[_iou(a, b) for b in boxes2.tolist()] for a in boxes1.tolist()]
    return torch.tensor(rows, dtype=torch.float32, device=boxes1.device).view(len(boxes1), len(boxes2))
