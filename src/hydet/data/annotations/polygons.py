"""Polygons: cutting them at the border of an image, and drawing them around bitmaps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from faster_coco_eval.core import mask as coco_mask

from hydet.data.annotations.rle import draw_code

__all__ = ["clip_polygon", "mask_to_polygons", "rasterized"]


def rasterized(objects: Sequence[Sequence[np.ndarray]], height: int, width: int) -> np.ndarray:
    """Rasterise objects as COCO does; the cost is that of their extents, not of the image.

    Args:
        objects: per object its polygons, flat ``(x0, y0, x1, y1, ...)`` arrays in pixels.
        height: of the masks.
        width: of the masks.

    Returns:
        ``(N, height, width)`` bool.
    """
    masks = np.zeros((len(objects), height, width), dtype=bool)
    flat = [np.asarray(p, dtype=np.float64).reshape(-1).tolist() for polygons in objects for p in polygons]
    codes = iter(coco_mask.frPyObjects(flat, height, width) if flat else ())
    for mask, polygons in zip(masks, objects):
        for _ in polygons:
            draw_code(next(codes), mask)
    return masks


def clip_polygon(polygon: np.ndarray, height: float, width: float) -> np.ndarray:
    """The part of a polygon inside an image.

    Args:
        polygon: flat ``(x0, y0, x1, y1, ...)``, in pixels.
        height: of the image.
        width: of the image.

    Returns:
        The same kind of array, of length 0 if nothing is inside. Parts that the border separates stay joined
        along it.

    Source: Sutherland and Hodgman 1974, "Reentrant polygon clipping".
    """
    points = np.asarray(polygon, dtype=np.float64).reshape(-1, 2)
    for axis, bound, sign in (
        (0, 0.0, 1.0),
        (1, 0.0, 1.0),
        (0, float(width), -1.0),
        (1, float(height), -1.0),
    ):
        if len(points) == 0:
            break
        depth = sign * (points[:, axis] - bound)  # >= 0 inside
        if (depth >= 0).all():
            continue
        following, next_depth = np.roll(points, -1, axis=0), np.roll(depth, -1)
        crossing = (depth >= 0) != (next_depth >= 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(crossing, depth / (depth - next_depth), 0.0)
        met = points + share[:, None] * (following - points)
        met[:, axis] = bound
        both = np.stack([points, met], axis=1).reshape(
            -1, 2
        )  # each point, then where its edge meets the border
        points = both[np.stack([depth >= 0, crossing], axis=1).reshape(-1)]
    return points.reshape(-1) if len(points) >= 3 else np.zeros(0)


def mask_to_polygons(mask: np.ndarray) -> list[np.ndarray]:
    """Polygons along the edges of the pixels of a bitmap; rasterised as COCO does they give the bitmap again.

    Args:
        mask: ``(H, W)`` bool.

    Returns:
        One flat ``(x0, y0, x1, y1, ...)`` array for each connected part (pixels that touch at a corner only are not
        connected). Holes are joined to the outline around them by a cut of no width.
    """
    loops = _boundary_loops(np.asarray(mask, dtype=bool))
    outer = [loop for loop in loops if _signed_area(loop) > 0]
    holes = [loop for loop in loops if _signed_area(loop) < 0]
    # A hole belongs to the smallest outline around it.
    outer.sort(key=_signed_area)
    joined: dict[int, list[np.ndarray]] = {}
    for hole in holes:
        inside = hole[0] + np.array([0.5, -0.5])  # see _boundary_loops: a hole starts at its top left corner
        owner = next(i for i, loop in enumerate(outer) if _contains(loop, inside))
        joined.setdefault(owner, []).append(hole)
    result = []
    for i, loop in enumerate(outer):
        for hole in joined.get(i, []):
            loop = np.concatenate([loop, loop[:1], hole, hole[:1]])
        result.append(loop.reshape(-1).astype(np.float64))
    return result


def _boundary_loops(mask: np.ndarray) -> list[np.ndarray]:
    """Closed walks along pixel edges with the inside on the right hand (y points down), corners only."""
    padded = np.pad(mask, 1)
    # An edge starts at a grid corner: right along the top of a pixel, down along its right side, and so on.
    start: dict[tuple[int, int], list[tuple[int, int]]] = {}
    top = padded[1:, 1:-1] & ~padded[:-1, 1:-1]
    bottom = ~padded[1:, 1:-1] & padded[:-1, 1:-1]
    left = padded[1:-1, 1:] & ~padded[1:-1, :-1]
    right = ~padded[1:-1, 1:] & padded[1:-1, :-1]
    for edges, (dx, dy), (ox, oy) in (
        (top, (1, 0), (0, 0)),
        (right, (0, 1), (0, 0)),
        (bottom, (-1, 0), (1, 0)),
        (left, (0, -1), (0, 1)),
    ):
        for y, x in np.argwhere(edges).tolist():
            start.setdefault((x + ox, y + oy), []).append((dx, dy))
    loops = []
    for corner in sorted(start, key=lambda c: (c[1], c[0])):
        while start[corner]:
            loops.append(_walk(start, corner))
    return loops


def _walk(start: dict[tuple[int, int], list[tuple[int, int]]], corner: tuple[int, int]) -> np.ndarray:
    (x, y), (dx, dy) = corner, start[corner].pop(0)
    points = [(x, y)]
    while True:
        x, y = x + dx, y + dy
        if (x, y) == corner and (-dy, dx) not in start[corner]:
            return np.array(points)
        onward = start[(x, y)]
        # Where two pixels touch at a corner, turning right keeps them apart.
        turn = (-dy, dx) if (-dy, dx) in onward else (dx, dy) if (dx, dy) in onward else (dy, -dx)
        onward.remove(turn)
        if turn != (dx, dy):
            points.append((x, y))
        dx, dy = turn


def _signed_area(loop: np.ndarray) -> float:
    """Positive if the inside is on the right hand."""
    x, y = loop.T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def _contains(loop: np.ndarray, point: np.ndarray) -> bool:
    (x, y), following = loop.T, np.roll(loop, -1, axis=0)
    crosses = (y > point[1]) != (following[:, 1] > point[1])  # edges are upright or level
    return bool(np.count_nonzero(crosses & (x > point[0])) % 2)
