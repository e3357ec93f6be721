"""Selection of annotations in flat storage."""

from __future__ import annotations

import dataclasses

import numpy as np

from hydet.data.coco.flat_storage import FlatAnnotations, FlatStrings

__all__ = ["has_region", "select_rows"]


def has_region(annotations: FlatAnnotations) -> np.ndarray:
    """Return ``(A,)`` bool: True for annotations with polygons or a run-length code."""
    has_polygons = np.diff(annotations.polygon_range) > 0
    return np.asarray(has_polygons | (np.diff(annotations.codes.offsets) > 0))


def select_rows(annotations: FlatAnnotations, keep: np.ndarray) -> FlatAnnotations:
    """Return the annotations for which ``keep``, ``(A,)`` bool, is True; all images remain."""
    rows = np.flatnonzero(keep)
    num_polygons = np.diff(annotations.polygon_range)
    keep_polygon = np.repeat(keep, num_polygons)
    num_coordinates = np.diff(annotations.coordinate_range)
    return dataclasses.replace(
        annotations,
        image_range=np.concatenate([[0], np.cumsum(keep)])[annotations.image_range],
        ids=annotations.ids[rows],
        classes=annotations.classes[rows],
        boxes=annotations.boxes[rows],
        areas=annotations.areas[rows],
        iscrowd=annotations.iscrowd[rows],
        ignore=annotations.ignore[rows],
        polygon_range=_starts(num_polygons[rows]),
        coordinate_range=_starts(num_coordinates[keep_polygon]),
        coordinates=annotations.coordinates[np.repeat(keep_polygon, num_coordinates)],
        codes=FlatStrings.of([annotations.codes[row] for row in rows.tolist()]),
        keypoints=None if annotations.keypoints is None else annotations.keypoints[rows],
        rotated_boxes=None if annotations.rotated_boxes is None else annotations.rotated_boxes[rows],
    )


def _starts(lengths: np.ndarray) -> np.ndarray:
    """Return the start of each of N consecutive ranges, and the end of the last one."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
