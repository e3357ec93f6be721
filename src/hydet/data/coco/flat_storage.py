"""Annotations of many images in a few flat arrays, which worker processes share."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

__all__ = ["AnnotationBuilder", "FlatAnnotations", "FlatIntegers", "FlatStrings"]


@dataclasses.dataclass
class FlatStrings:
    """Many byte strings in one array."""

    content: np.ndarray  # uint8
    offsets: np.ndarray  # (N + 1,) int64

    @classmethod
    def of(cls, strings: list[bytes]) -> FlatStrings:
        return cls(np.frombuffer(b"".join(strings), dtype=np.uint8), _offsets([len(s) for s in strings]))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> bytes:
        return self.content[self.offsets[index] : self.offsets[index + 1]].tobytes()


@dataclasses.dataclass
class FlatIntegers:
    """Many lists of integers in one array."""

    content: np.ndarray  # int64
    offsets: np.ndarray  # (N + 1,) int64

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]]) -> FlatIntegers:
        content = np.fromiter(chain.from_iterable(lists), dtype=np.int64)
        return cls(content, _offsets([len(one) for one in lists]))

    def __getitem__(self, index: int) -> list[int]:
        return self.content[self.offsets[index] : self.offsets[index + 1]].tolist()


@dataclasses.dataclass
class FlatAnnotations:
    """A annotations in the order of their images.

    Polygons are numbered through: those of annotation ``a`` are ``polygon_range[a] ... polygon_range[a + 1]``, the
    coordinates of polygon ``p`` are ``coordinates[coordinate_range[p] : coordinate_range[p + 1]]``.
    """

    image_range: np.ndarray  # (images + 1,) int64: which annotations an image has
    ids: np.ndarray  # (A,) int64
    classes: np.ndarray  # (A,) int64, contiguous
    boxes: np.ndarray  # (A, 4) float64 as (x, y, w, h), as files have them
    areas: np.ndarray  # (A,) float64
    iscrowd: np.ndarray  # (A,) bool
    ignore: np.ndarray  # (A,) bool: difficult ones, which VOC's evaluation does not count
    polygon_range: np.ndarray  # (A + 1,) int64
    coordinate_range: np.ndarray  # (P + 1,) int64
    coordinates: np.ndarray  # float64
    codes: FlatStrings  # (A,) compressed run-length codes, empty where there is none
    keypoints: np.ndarray | None  # (A, K, 3) float32
    rotated_boxes: np.ndarray | None  # (A, 5) float32

    def of_image(self, index: int) -> range:
        return range(int(self.image_range[index]), int(self.image_range[index + 1]))

    def sum_of_images(self, values: np.ndarray) -> np.ndarray:
        """``(images,)`` int64: sums of one number for each annotation, over those of each image."""
        images = np.repeat(np.arange(len(self.image_range) - 1), np.diff(self.image_range))
        return np.bincount(images, weights=values, minlength=len(self.image_range) - 1).astype(np.int64)

    def polygons(self, annotation: int) -> list[np.ndarray]:
        bounds = self.coordinate_range
        start, end = self.polygon_range[annotation], self.polygon_range[annotation + 1]
        return [self.coordinates[bounds[p] : bounds[p + 1]] for p in range(start, end)]


class AnnotationBuilder:
    """Collects annotations in any order; ``build`` sorts them by image."""

    def __init__(self) -> None:
        self.images: list[int] = []
        self.ids: list[int] = []
        self.classes: list[int] = []
        self.boxes: list[tuple[float, float, float, float]] = []
        self.areas: list[float] = []
        self.iscrowd: list[bool] = []
        self.ignore: list[bool] = []
        self.polygons: list[list[np.ndarray]] = []
        self.codes: list[bytes] = []
        self.keypoints: list[Any] = []
        self.rotated_boxes: list[Any] = []

    def build(self, num_images: int, *, num_keypoints: int | None) -> FlatAnnotations:
        """Flatten.

        Args:
            num_images: images are numbered 0 ... num_images - 1.
            num_keypoints: None for no keypoints.
        """
        images = np.array(self.images, dtype=np.int64)
        order = np.argsort(images, kind="stable")
        places = order.tolist()
        polygons = [self.polygons[i] for i in places]
        flat = [p for one in polygons for p in one]
        keypoints = rotated = None
        if num_keypoints is not None:
            keypoints = np.zeros((len(places), num_keypoints, 3), dtype=np.float32)
            for row, i in enumerate(places):
                if self.keypoints[i] is not None:
                    keypoints[row] = np.asarray(self.keypoints[i], dtype=np.float32).reshape(-1, 3)
        if any(r is not None for r in self.rotated_boxes):
            rotated = np.array(
                [
                    _level(self.boxes[i]) if self.rotated_boxes[i] is None else self.rotated_boxes[i]
                    for i in places
                ],
                dtype=np.float32,
            ).reshape(-1, 5)
        return FlatAnnotations(
            image_range=_offsets(np.bincount(images, minlength=num_images)),
            ids=np.array(self.ids, dtype=np.int64)[order],
            classes=np.array(self.classes, dtype=np.int64)[order],
            boxes=np.array(self.boxes, dtype=np.float64).reshape(-1, 4)[order],
            areas=np.array(self.areas, dtype=np.float64)[order],
            iscrowd=np.array(self.iscrowd, dtype=bool)[order],
            ignore=np.array(self.ignore, dtype=bool)[order],
            polygon_range=_offsets([len(one) for one in polygons]),
            coordinate_range=_offsets([len(p) for p in flat]),
            coordinates=np.concatenate(flat) if flat else np.zeros(0),
            codes=FlatStrings.of([self.codes[i] for i in places]),
            keypoints=keypoints,
            rotated_boxes=rotated,
        )


def _offsets(lengths: Any) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.asarray(lengths, dtype=np.int64))]).astype(np.int64)


def _level(box: tuple[float, float, float, float]) -> tuple[float, ...]:
    x, y, w, h = box
    return (x + w / 2, y + h / 2, w, h, 0.0)
