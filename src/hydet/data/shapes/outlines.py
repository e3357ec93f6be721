"""Outlines of the generated shapes, and the size, rotated box and keypoints of an outline."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hydet.data.annotations.polygons import signed_area

__all__ = ["KEYPOINTS", "SHAPES", "Shape", "find_keypoints", "place_outline", "polygon_area"]

KEYPOINTS = ("center", "left", "right", "top", "bottom")
# Directions from the center to the other keypoints, as (x, y).
_DIRECTIONS = np.array([[-1.0, 0.0], [1.0, 0.0], [0.0, -1.0], [0.0, 1.0]])
_KEYPOINT_REACH = (
    0.8  # distance of these keypoints from the center, as a fraction of the distance to the outline
)
_PARALLEL = 1e-9  # cross products below this belong to parallel lines
_EDGE_TOLERANCE = 1e-6  # keeps intersections at the corners in spite of rounding


class Shape(NamedTuple):
    """One kind of shape.

    Args:
        outline: ``(V, 2)`` points (x, y), y pointing down; their bounding box reaches from -1 to 1.
        max_aspect_ratio: largest ratio of the longer to the shorter side.
    """

    outline: np.ndarray
    max_aspect_ratio: float


def _fit_to_unit_box(points: np.ndarray) -> np.ndarray:
    """Move and scale points so that their bounding box reaches from -1 to 1."""
    low, high = points.min(axis=0), points.max(axis=0)
    return np.asarray((points - (low + high) / 2) / ((high - low) / 2))


def _ellipse() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    return np.stack([np.cos(t), np.sin(t)], axis=1)


def _star() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 10, endpoint=False) - np.pi / 2
    r = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
    return _fit_to_unit_box(np.stack([r * np.cos(t), r * np.sin(t)], axis=1))


def _cross(arm: float = 0.34) -> np.ndarray:
    quarter = np.array([[arm, -1.0], [arm, -arm], [1.0, -arm]])
    rotation = np.array([[0.0, 1.0], [-1.0, 0.0]])
    return np.concatenate([quarter @ np.linalg.matrix_power(rotation, k) for k in range(4)])


def _heart() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return _fit_to_unit_box(np.stack([x, -y], axis=1))


SHAPES: dict[str, Shape] = {
    "ellipse": Shape(_ellipse(), 1.7),
    "rectangle": Shape(np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]]), 1.7),
    "triangle": Shape(np.array([[0.0, -1.0], [1.0, 1.0], [-1.0, 1.0]]), 1.25),
    "star": Shape(_star(), 1.1),
    "cross": Shape(_cross(), 1.15),
    "heart": Shape(_heart(), 1.2),
}


def place_outline(outline: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Scale, rotate and move an outline into a rotated box.

    Args:
        outline: ``(V, 2)``, the outline of a :class:`Shape`.
        box: (cx, cy, w, h, degrees counter-clockwise on screen), in pixels.

    Returns:
        ``(V, 2)`` in pixels, rounded to 0.01, so that files contain exactly what is drawn.
    """
    cx, cy, w, h, degrees = box
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    scaled = outline * (w / 2, h / 2)
    return np.asarray(np.round(scaled @ np.array([[cos, -sin], [sin, cos]]) + (cx, cy), 2))


def polygon_area(points: np.ndarray) -> float:
    """Return the area of a polygon with ``(V, 2)`` vertices, in square pixels."""
    return abs(signed_area(points))


def find_keypoints(points: np.ndarray, center: np.ndarray) -> np.ndarray:
    """Return the keypoints of an outline.

    Left, right, top and bottom are directions in the image, not in the shape, so mirroring the image swaps left and
    right. Each keypoint lies on the ray from the center in its direction, at 80% of the way to the outline.

    Args:
        points: ``(V, 2)`` outline in pixels.
        center: ``(2,)`` center of the shape in pixels.

    Returns:
        ``(5, 2)`` keypoints in the order of ``KEYPOINTS``, in pixels.
    """
    # Intersect 4 rays, center + t * direction, with V edges, point + s * edge.
    start, edge = points - center, np.roll(points, -1, axis=0) - points  # (V, 2)
    direction = _DIRECTIONS[:, None]  # (4, 1, 2)
    cross = direction[..., 0] * edge[:, 1] - direction[..., 1] * edge[:, 0]  # (4, V)
    divisor = np.where(np.abs(cross) < _PARALLEL, 1.0, cross)
    t = (start[:, 0] * edge[:, 1] - start[:, 1] * edge[:, 0]) / divisor
    s = (start[:, 0] * direction[..., 1] - start[:, 1] * direction[..., 0]) / divisor
    on_edge = (s >= -_EDGE_TOLERANCE) & (s <= 1 + _EDGE_TOLERANCE)
    hit = (np.abs(cross) >= _PARALLEL) & on_edge & (t > 0)
    distance = np.where(hit, t, 0.0).max(axis=1)  # (4,) to the outermost intersection
    return np.concatenate([center[None], center + _KEYPOINT_REACH * distance[:, None] * _DIRECTIONS])
