"""Results as labelme files."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hydet.data.coco.rotated_shapes import corners_of
from hydet.files import write_atomically

from .outlines import mask_outlines

if TYPE_CHECKING:
    from hydet.runs.result import Result

__all__ = ["to_labelme"]

_VERSION = "5.5.0"  # of labelme whose format this is


def to_labelme(result: Result, path: str | Path | None = None) -> dict[str, Any]:
    """Return the content of a labelme file for an image.

    Masks become polygons, rotated boxes polygons of four corners, other boxes rectangles, and keypoints points with the
    name of the keypoint. The shapes of one object share a ``group_id``, and ``description`` holds the score.

    Args:
        result: the result.
        path: file to write as well; ``imagePath`` is then relative to its folder.

    Raises:
        ValueError: if the objects have no classes.
        WriteError: if the file cannot be written.
    """
    result.check_classes("to_labelme")
    shapes = []
    outlines = mask_outlines(result) if result.instances.has("pred_masks") else [[]] * len(result)
    boxes, scores = result.boxes.tolist(), result.scores.tolist()
    keypoints = None if result.keypoints is None else result.keypoints.tolist()
    for i, name in enumerate(result.class_names):
        polygons = [polygon.tolist() for polygon in outlines[i]]
        if not polygons and result.is_rotated:
            polygons = [np.reshape(corners_of(boxes[i]), (4, 2)).tolist()]
        is_group = len(polygons) > 1 or keypoints is not None
        details = {"group_id": i if is_group else None, "description": f"score {scores[i]:.3f}"}
        if polygons:
            shapes += [_shape(name, polygon, "polygon", details) for polygon in polygons]
        else:
            x1, y1, x2, y2 = boxes[i]
            shapes.append(_shape(name, [[x1, y1], [x2, y2]], "rectangle", details))
        if keypoints is not None:
            shapes += [
                _shape(part, [[x, y]], "point", {**details, "description": f"score {score:.3f}"})
                for part, (x, y, score) in zip(result.metadata.keypoint_names, keypoints[i])
            ]
    content: dict[str, Any] = {
        "version": _VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": result.name if path is None else os.path.relpath(result.name, Path(path).parent),
        "imageData": None,
        "imageHeight": result.height,
        "imageWidth": result.width,
    }
    if path is not None:
        write_atomically(Path(path), json.dumps(content, indent=2, ensure_ascii=False))
    return content


def _shape(
    label: str, points: Sequence[Sequence[float]], kind: str, details: dict[str, Any]
) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, "flags": {}, "mask": None, **details}
