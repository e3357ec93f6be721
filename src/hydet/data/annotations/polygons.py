"""Polygons: rasterization, clipping at the image border, and tracing of masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from faster_coco_eval.core import mask as coco_mask

from hydet.data.annotations.rle import draw_run_lengths

__all__ = ["clip_polygon", "mask_to_polygons", "rasterize_polygons", "signed_area", "simplify_polygon"]

_Point = tuple[int, int]  # (x, y)
_Step = tuple[int, int]  # (dx, dy), one of them 0 and the other -1 or 1


def rasterize_polygons(objects: Sequence[Sequence[np.ndarray]], height: int, width: int) -> np.ndarray:
    """Rasterize objects as COCO does. The cost depends on the extent of the objects, not on the image size.

    Args:
        objects: polygons of each object, as flat ``(x0, y0, x1, y1, ...)`` arrays in pixels.
        height: height of the masks in pixels.
        width: width of the masks in pixels.

    Returns:
        ``(N, height, width)`` bool masks, each the union of the object's polygons.
    """
    masks = np.zeros((len(objects), height, width), dtype=bool)
    flat = [np.asarray(p, dtype=np.float64).reshape(-1).tolist() for polygons in objects for p in polygons]
    codes = iter(coco_mask.frPyObjects(flat, height, width) if flat else ())
    for mask, polygons in zip(masks, objects):
        for _ in polygons:
            draw_run_lengths(next(codes), mask)
    return masks


def clip_polygon(polygon: np.ndarray, height: float, width: float) -> np.ndarray:
    """Clip a polygon at the border of an image.

    Args:
        polygon: flat ``(x0, y0, x1, y1, ...)`` array in pixels.
        height: image height in pixels.
        width: image width in pixels.

    Returns:
        The clipped polygon in the same form, or an array of length 0 if it lies outside the image. Parts that the
        border separates stay connected by edges along the border.

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
        depth = sign * (points[:, axis] - bound)  # distance to the border, >= 0 inside
        if (depth >= 0).all():
            continue
        next_points, next_depth = np.roll(points, -1, axis=0), np.roll(depth, -1)
        crosses = (depth >= 0) != (next_depth >= 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            fraction = np.where(crosses, depth / (depth - next_depth), 0.0)
        intersections = points + fraction[:, None] * (next_points - points)
        intersections[:, axis] = bound
        # Each point is followed by the intersection of its outgoing edge; then select those that exist.
        candidates = np.stack([points, intersections], axis=1).reshape(-1, 2)  # (2P, 2)
        points = candidates[np.stack([depth >= 0, crosses], axis=1).reshape(-1)]
    return points.reshape(-1) if len(points) >= 3 else np.zeros(0)


def mask_to_polygons(mask: np.ndarray) -> list[np.ndarray]:
    """Trace the outlines of a mask along pixel edges; rasterizing the polygons gives the same mask.

    Args:
        mask: ``(H, W)`` bool.

    Returns:
        One flat ``(x0, y0, x1, y1, ...)`` array per connected component. Pixels that share only a corner are not
        connected. A hole is joined to the outline around it by a cut of zero width.
    """
    loops = _boundary_loops(np.asarray(mask, dtype=bool))
    outlines = [loop for loop in loops if signed_area(loop) > 0]
    holes = [loop for loop in loops if signed_area(loop) < 0]
    # With the outlines in ascending order of area, the first one that contains a hole is the smallest.
    outlines.sort(key=signed_area)
    holes_of: dict[int, list[np.ndarray]] = {}
    for hole in holes:
        # The pixel above the hole, which starts at its top left corner.
        inside = hole[0] + np.array([0.5, -0.5])
        owner = next(i for i, outline in enumerate(outlines) if _contains(outline, inside))
        holes_of.setdefault(owner, []).append(hole)
    polygons = []
    for i, outline in enumerate(outlines):
        for hole in holes_of.get(i, []):
            outline = np.concatenate([outline, outline[:1], hole, hole[:1]])
        polygons.append(outline.reshape(-1).astype(np.float64))
    return polygons


def _boundary_loops(mask: np.ndarray) -> list[np.ndarray]:
    """Trace closed loops along pixel edges: clockwise around components, counterclockwise around holes."""
    padded = np.pad(mask, 1)
    # Directed edges by the grid corner where they start: right along the top of a pixel, down along its right side,
    # left along the bottom, up along the left side.
    edges_from: dict[_Point, list[_Step]] = {}
    top = padded[1:, 1:-1] & ~padded[:-1, 1:-1]
    bottom = ~padded[1:, 1:-1] & padded[:-1, 1:-1]
    left = padded[1:-1, 1:] & ~padded[1:-1, :-1]
    right = ~padded[1:-1, 1:] & padded[1:-1, :-1]
    for edges, step, (offset_x, offset_y) in (
        (top, (1, 0), (0, 0)),
        (right, (0, 1), (0, 0)),
        (bottom, (-1, 0), (1, 0)),
        (left, (0, -1), (0, 1)),
    ):
        for y, x in np.argwhere(edges).tolist():
            edges_from.setdefault((x + offset_x, y + offset_y), []).append(step)
    loops = []
    for corner in sorted(edges_from, key=lambda point: (point[1], point[0])):
        while edges_from[corner]:
            loops.append(_trace_loop(edges_from, corner))
    return loops


def _trace_loop(edges_from: dict[_Point, list[_Step]], corner: _Point) -> np.ndarray:
    """Follow edges from ``corner`` until the loop closes, remove them, and return ``(P, 2)`` corner points."""
    (x, y), (dx, dy) = corner, edges_from[corner].pop(0)
    points = [(x, y)]
    while True:
        x, y = x + dx, y + dy
        if (x, y) == corner and (-dy, dx) not in edges_from[corner]:
            return np.array(points)
        candidates = edges_from[(x, y)]
        # A right turn where two pixels touch at a corner keeps them in separate loops.
        turn = (-dy, dx) if (-dy, dx) in candidates else (dx, dy) if (dx, dy) in candidates else (dy, -dx)
        candidates.remove(turn)
        if turn != (dx, dy):
            points.append((x, y))
        dx, dy = turn


def simplify_polygon(points: np.ndarray, tolerance: float) -> np.ndarray:
    """Drop vertices of a polygon that lie close to the line between their remaining neighbors.

    Args:
        points: ``(V, 2)`` vertices as (x, y) in pixels.
        tolerance: largest distance of a dropped vertex from the line, in pixels.

    Returns:
        Some of the vertices in their order; all of them if fewer than three would remain.

    Source: Douglas and Peucker 1973, "Algorithms for the reduction of the number of points ...".
    """
    # The closed outline becomes two open lines, split at the vertex that is farthest from the first one.
    far = int(((points - points[0]) ** 2).sum(axis=1).argmax())
    closed = np.concatenate([points, points[:1]])
    keep = np.zeros(len(closed), dtype=bool)
    keep[[0, far, -1]] = True
    pending = [(0, far), (far, len(closed) - 1)]
    while pending:
        start, end = pending.pop()
        if end - start < 2:
            continue
        distances = _distances(closed[start + 1 : end], closed[start], closed[end])
        index = int(distances.argmax())
        if distances[index] > tolerance:
            middle = start + 1 + index
            keep[middle] = True
            pending += [(start, middle), (middle, end)]
    simplified = points[keep[:-1]]
    return simplified if len(simplified) >= 3 else points


def _distances(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the ``(V,)`` distances of points from the segment between ``start`` and ``end``."""
    along = end - start
    fraction = np.clip((points - start) @ along / max(float(along @ along), 1e-12), 0, 1)
    distances: np.ndarray = np.hypot(*(points - start - fraction[:, None] * along).T)
    return distances


def signed_area(points: np.ndarray) -> float:
    """Compute the area of a polygon by the shoelace formula.

    Args:
        points: ``(V, 2)`` vertices as (x, y) in pixels, y pointing down.

    Returns:
        The area in square pixels: positive for clockwise vertices on screen, negative for counterclockwise ones.
    """
    x, y = points.T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def _contains(loop: np.ndarray, point: np.ndarray) -> bool:
    """Return True if ``point`` lies inside a loop, by the even-odd rule for a ray towards larger x."""
    (x, y), next_points = loop.T, np.roll(loop, -1, axis=0)
    crosses = (y > point[1]) != (next_points[:, 1] > point[1])  # only vertical edges change y
    return bool(np.count_nonzero(crosses & (x > point[0])) % 2)
