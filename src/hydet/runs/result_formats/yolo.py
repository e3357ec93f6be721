"""Results as YOLO label files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hydet.data.coco.rotated_shapes import corners_of
from hydet.files import write_atomically

from .outlines import join_polygons, mask_outlines

if TYPE_CHECKING:
    from hydet.runs.result import Result

__all__ = ["to_yolo"]

_VISIBLE = 2  # visibility of a keypoint, as in COCO


def to_yolo(result: Result, path: str | Path | None = None) -> str:
    """Return the content of a YOLO label file: one line per object, with coordinates as fractions of the image.

    The kind of line is that of the most detailed prediction::

        class cx cy w h x1 y1 2 x2 y2 2 ...     a box and keypoints
        class x1 y1 x2 y2 ...                   the polygon of a mask
        class x1 y1 x2 y2 x3 y3 x4 y4           the corners of a rotated box
        class cx cy w h                         a box

    A mask of several parts becomes one polygon whose parts are joined by cuts of zero width; an empty mask becomes the
    corners of its box.

    Args:
        result: the result.
        path: file to write as well.

    Raises:
        ValueError: if the objects have no classes.
        WriteError: if the file cannot be written.
    """
    result.check_classes("to_yolo")
    size = np.array([result.width, result.height], dtype=np.float64)
    lines = [
        " ".join([str(class_id), *(_short(v) for v in values)])
        for class_id, values in zip(result.class_ids.tolist(), _coordinates(result, size), strict=True)
    ]
    text = "".join(f"{line}\n" for line in lines)
    if path is not None:
        write_atomically(Path(path), text)
    return text


def _coordinates(result: Result, size: np.ndarray) -> Iterator[Sequence[float]]:
    """Yield the numbers of each object after its class."""
    boxes = result.boxes.double().numpy()
    if result.keypoints is not None:
        for box, points in zip(boxes, result.keypoints.double().numpy()):
            rows = [[*_fractions(point[None, :2], size), _VISIBLE] for point in points]
            yield [*_center_and_size(box, size), *np.ravel(rows)]
    elif result.instances.has("pred_masks"):
        for box, polygons in zip(boxes, mask_outlines(result)):
            yield _fractions(join_polygons(polygons) if polygons else _corners(box), size)
    elif result.is_rotated:
        for box in boxes:
            yield _fractions(_corners(box), size)
    else:
        for box in boxes:
            yield _center_and_size(box, size)


def _center_and_size(box: np.ndarray, size: np.ndarray) -> list[float]:
    low, high = np.clip(box[:2] / size, 0, 1), np.clip(box[2:] / size, 0, 1)
    return [*((low + high) / 2).tolist(), *(high - low).tolist()]


def _corners(box: np.ndarray) -> np.ndarray:
    """Return the ``(4, 2)`` corners of a box of either kind."""
    if len(box) == 5:
        return np.reshape(corners_of(tuple(box.tolist())), (4, 2))
    x1, y1, x2, y2 = box
    return np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)])


def _fractions(points: np.ndarray, size: np.ndarray) -> list[float]:
    """Return ``(V, 2)`` points as a flat list of fractions of the image in [0, 1]."""
    flat: list[float] = np.clip(points / size, 0, 1).reshape(-1).tolist()
    return flat


def _short(value: float) -> str:
    return f"{value:.6g}"
