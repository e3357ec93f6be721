"""Random placement of shapes, crowds and distractors in a generated image."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from hydet.data.shapes import outlines
from hydet.data.shapes.scene_style import SceneStyle

__all__ = ["CandidateObjects", "ShapeInstance", "draw_distractors", "draw_objects", "select_visible"]

_SPARE_CANDIDATES = 3  # drawn in addition, to replace candidates that are hidden
_CROWD_SHAPES = (8, 14)  # least and largest number of shapes in a crowd
_CROWD_PITCH = 7.5  # pixels between the shapes of a crowd
_CROWD_SHAPE_SIZE = (5, 7)  # pixels
_MIN_VISIBLE_PIXELS = 9


@dataclasses.dataclass(frozen=True)
class ShapeInstance:
    """One object: a shape, or a crowd of shapes of one class.

    Args:
        class_index: index in ``SceneStyle.shapes``.
        polygons: ``(V, 2)`` each, in pixels; one for a shape, several for a crowd.
        rotated_box: (cx, cy, w, h, degrees) around the whole object.
        iscrowd: True for a crowd.
    """

    class_index: int
    polygons: list[np.ndarray]
    rotated_box: np.ndarray
    iscrowd: bool = False

    @property
    def area(self) -> float:
        """Area of all polygons in square pixels, hidden parts included."""
        return sum(outlines.polygon_area(polygon) for polygon in self.polygons)


class CandidateObjects(NamedTuple):
    """Candidates for the objects of an image; the image uses the first ``num_objects`` visible ones.

    Args:
        instances: candidates from front to back.
        num_objects: number of visible candidates to use.
    """

    instances: list[ShapeInstance]
    num_objects: int


def draw_objects(rng: np.random.Generator, height: int, width: int, style: SceneStyle) -> CandidateObjects:
    """Draw random candidates for the objects of an image, more than it uses, because some may be hidden."""
    if rng.random() < style.empty_fraction:
        return CandidateObjects([], 0)
    shorter_side = min(height, width)
    num_objects = int(rng.integers(style.min_objects, style.max_objects + 1))
    count = num_objects + _SPARE_CANDIDATES
    min_size = style.min_size
    max_size = max(style.max_size * shorter_side, min_size)
    # Log-uniform sizes would be small for the most part; the exponent below 1 shifts them towards large ones.
    sizes = min_size * (max_size / min_size) ** (rng.random(count) ** 0.8)
    class_indices = rng.integers(0, len(style.shapes), count)
    stretches = rng.uniform(-1, 1, count)
    angles = rng.uniform(-style.rotation, style.rotation, count)
    x, y = rng.random(count), rng.random(count)
    instances = []
    for i in range(count):
        shape = outlines.SHAPES[style.shapes[class_indices[i]]]
        stretch = math.sqrt(shape.max_aspect_ratio) ** stretches[i]
        w, h = max(sizes[i] * stretch, min_size), max(sizes[i] / stretch, min_size)
        margin = 0.3 * sizes[i]  # keeps the larger part of the shape inside the image
        center = margin + (width - 2 * margin) * x[i], margin + (height - 2 * margin) * y[i]
        box = np.array([*np.round(center, 2), round(w, 2), round(h, 2), _normalize_angle(angles[i])])
        instances.append(
            ShapeInstance(int(class_indices[i]), [outlines.place_outline(shape.outline, box)], box)
        )
    if rng.random() < style.crowd_fraction:
        # In front, or behind one object.
        instances.insert(int(rng.integers(0, 2)), _draw_crowd(rng, height, width, style))
        num_objects += 1
    return CandidateObjects(instances, num_objects)


def _normalize_angle(degrees: float) -> float:
    """Return the angle of the same box in [-90, 90), rounded to 0.01 degrees."""
    return round((degrees + 90.0) % 180.0 - 90.0, 2) if not -90.0 <= degrees < 90.0 else round(degrees, 2)


def _draw_crowd(rng: np.random.Generator, height: int, width: int, style: SceneStyle) -> ShapeInstance:
    """Draw tiny shapes of one class on a perturbed grid."""
    count = int(rng.integers(_CROWD_SHAPES[0], _CROWD_SHAPES[1] + 1))
    class_index = int(rng.integers(0, len(style.shapes)))
    outline = outlines.SHAPES[style.shapes[class_index]].outline
    num_columns = math.ceil(math.sqrt(count * 1.6))  # wider than high
    cells = np.stack([np.arange(count) % num_columns, np.arange(count) // num_columns], axis=1) * _CROWD_PITCH
    free_space = np.maximum(np.array([width, height]) - cells.max(axis=0) - 2 * _CROWD_PITCH, 1.0)
    centers = cells + _CROWD_PITCH + rng.random(2) * free_space + rng.uniform(-1, 1, (count, 2))
    sizes, angles = rng.uniform(*_CROWD_SHAPE_SIZE, count), rng.uniform(-30, 30, count)
    polygons = [
        outlines.place_outline(outline, np.array([*center, size, size, angle]))
        for center, size, angle in zip(centers, sizes, angles)
    ]
    points = np.concatenate(polygons)
    low, high = points.min(axis=0), points.max(axis=0)
    box = np.round([*(low + high) / 2, *(high - low), 0.0], 2)
    return ShapeInstance(class_index, polygons, box, iscrowd=True)


def draw_distractors(
    rng: np.random.Generator, height: int, width: int, style: SceneStyle
) -> list[list[np.ndarray]]:
    """Draw thin random lines across the background.

    Returns:
        One object per line: a list with one flat polygon of four points, in pixels.
    """
    count = int(rng.integers(0, style.max_distractors + 1))
    starts, ends = rng.random((2, count, 2)) * (width, height)
    lines = []
    for start, end, thickness in zip(starts, ends, rng.uniform(1.2, 2.4, count)):
        along = (end - start) / max(float(np.hypot(*(end - start))), 1.0)
        across = np.array([-along[1], along[0]]) * thickness / 2
        lines.append([np.concatenate([start + across, end + across, end - across, start - across])])
    return lines


def select_visible(candidates: CandidateObjects, masks: np.ndarray, min_visibility: float) -> list[int]:
    """Select the candidates that are visible enough, from front to back, until there are ``num_objects``.

    Args:
        candidates: candidates from front to back.
        masks: ``(N, H, W)`` bool, the whole candidates, including hidden parts.
        min_visibility: least visible fraction of an object's area.

    Returns:
        Indices of the selected candidates, from front to back.
    """
    selected: list[int] = []
    covered = np.zeros(masks.shape[1:], dtype=bool)
    for i, candidate in enumerate(candidates.instances):
        if len(selected) == candidates.num_objects:
            break
        num_visible = np.count_nonzero(masks[i] & ~covered)
        if num_visible >= max(min_visibility * candidate.area, _MIN_VISIBLE_PIXELS):
            selected.append(i)
            covered |= masks[i]
    return selected
