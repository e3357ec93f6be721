"""The outlines of the shapes, and what follows from an outline: size, rotated box, keypoints."""

from __future__ import annotations

import numpy as np

__all__ = ["KEYPOINTS", "SHAPES", "area", "keypoints", "placed"]

KEYPOINTS = ("center", "left", "right", "top", "bottom")
_DIRECTIONS = np.array([[-1.0, 0.0], [1.0, 0.0], [0.0, -1.0], [0.0, 1.0]])  # of the last four
_REACH = 0.8  # how far from the centre to the outline they lie


def _fitted(points: np.ndarray) -> np.ndarray:
    """Moved and stretched so that the bounding box reaches from -1 to 1."""
    low, high = points.min(axis=0), points.max(axis=0)
    return (points - (low + high) / 2) / ((high - low) / 2)


def _ellipse() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    return np.stack([np.cos(t), np.sin(t)], axis=1)


def _star() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 10, endpoint=False) - np.pi / 2
    r = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
    return _fitted(np.stack([r * np.cos(t), r * np.sin(t)], axis=1))


def _cross(arm: float = 0.34) -> np.ndarray:
    quarter = np.array([[arm, -1.0], [arm, -arm], [1.0, -arm]])
    turn = np.array([[0.0, 1.0], [-1.0, 0.0]])
    return np.concatenate([quarter @ np.linalg.matrix_power(turn, k) for k in range(4)])


def _heart() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return _fitted(np.stack([x, -y], axis=1))


# Name: the outline in a frame where its bounding box reaches from -1 to 1, y pointing down; and how far the ratio
# of its sides may be from 1.
SHAPES: dict[str, tuple[np.ndarray, float]] = {
    "ellipse": (_ellipse(), 1.7),
    "rectangle": (np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]]), 1.7),
    "triangle": (np.array([[0.0, -1.0], [1.0, 1.0], [-1.0, 1.0]]), 1.25),
    "star": (_star(), 1.1),
    "cross": (_cross(), 1.15),
    "heart": (_heart(), 1.2),
}


def placed(outline: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The outline within a rotated box, to a hundredth of a pixel.

    Args:
        outline: ``(V, 2)``, one of ``SHAPES``.
        box: (cx, cy, w, h, degrees counter-clockwise on screen).

    Returns:
        ``(V, 2)`` in pixels.
    """
    cx, cy, w, h, degrees = box
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    own = outline * (w / 2, h / 2)
    return np.round(own @ np.array([[c, -s], [s, c]]) + (cx, cy), 2)


def area(points: np.ndarray) -> float:
    """Of a polygon ``(V, 2)``, in square pixels."""
    x, y = points.T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def keypoints(points: np.ndarray, center: np.ndarray) -> np.ndarray:
    """``(5, 2)`` keypoints of an outline, in the order of ``KEYPOINTS``.

    Left, right, top and bottom are those of the picture, so a mirror exchanges left and right: they lie on the lines
    from the centre to the left, to the right, up and down, most of the way to the outline.
    """
    a, edge = points - center, np.roll(points, -1, axis=0) - points  # (V, 2)
    d = _DIRECTIONS[:, None]  # (4, 1, 2)
    cross = d[..., 0] * edge[:, 1] - d[..., 1] * edge[:, 0]  # (4, V)
    safe = np.where(np.abs(cross) < 1e-9, 1.0, cross)
    along = (a[:, 0] * edge[:, 1] - a[:, 1] * edge[:, 0]) / safe
    share = (a[:, 0] * d[..., 1] - a[:, 1] * d[..., 0]) / safe
    hit = (np.abs(cross) >= 1e-9) & (share >= -1e-6) & (share <= 1 + 1e-6) & (along > 0)
    reach = np.where(hit, along, 0.0).max(axis=1)  # (4,)
    return np.concatenate([center[None], center + _REACH * reach[:, None] * _DIRECTIONS])
