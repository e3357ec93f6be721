"""Annotations and images in a few flat arrays, which worker processes share instead of copying Python objects."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from hydet.data.coco.json_file import FEDERATED_KEYS, ImageEntry
from hydet.data.datasets.coco_format import FederatedKey
from hydet.data.datasets.record import Segment

__all__ = ["Annotation", "FlatAnnotations", "FlatImages", "FlatIntegers", "FlatStrings", "XYWHBox"]

XYWHBox = tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True)
class FlatStrings:
    """N byte strings in one array.

    Args:
        content: ``(bytes,)`` uint8, all strings concatenated.
        offsets: ``(N + 1,)`` int64; string ``i`` is ``content[offsets[i] : offsets[i + 1]]``.
    """

    content: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, strings: Sequence[bytes]) -> FlatStrings:
        """Concatenate strings."""
        return cls(np.frombuffer(b"".join(strings), dtype=np.uint8), _offsets([len(s) for s in strings]))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> bytes:
        return self.content[self.offsets[index] : self.offsets[index + 1]].tobytes()


@dataclasses.dataclass(frozen=True)
class FlatIntegers:
    """N lists of integers in one array.

    Args:
        content: ``(numbers,)`` int64, all lists concatenated.
        offsets: ``(N + 1,)`` int64; list ``i`` is ``content[offsets[i] : offsets[i + 1]]``.
    """

    content: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]]) -> FlatIntegers:
        """Concatenate lists."""
        content = np.fromiter(chain.from_iterable(lists), dtype=np.int64)
        return cls(content, _offsets([len(numbers) for numbers in lists]))

    def __getitem__(self, index: int) -> list[int]:
        numbers: list[int] = self.content[self.offsets[index] : self.offsets[index + 1]].tolist()
        return numbers


@dataclasses.dataclass(frozen=True)
class FlatImages:
    """The images of a file.

    Args:
        names: file names, relative to the image folder.
        ids: ``(N,)`` int64 image ids in the JSON.
        sizes: ``(N, 2)`` int64 (height, width) in pixels, as in the JSON.
        federated: LVIS's lists of category ids by key, for the keys that any image has.
    """

    names: FlatStrings
    ids: np.ndarray
    sizes: np.ndarray
    federated: dict[FederatedKey, FlatIntegers]

    @classmethod
    def of(cls, images: Sequence[ImageEntry]) -> FlatImages:
        """Flatten the entries of a file."""
        return cls(
            # A file system may have names that are not valid Unicode.
            names=FlatStrings.of([image.file_name.encode(errors="surrogatepass") for image in images]),
            ids=np.array([image.image_id for image in images], dtype=np.int64),
            sizes=np.array([(image.height, image.width) for image in images], dtype=np.int64),
            federated={
                key: FlatIntegers.of([image.federated.get(key, []) for image in images])
                for key in FEDERATED_KEYS
                if any(key in image.federated for image in images)
            },
        )

    def __len__(self) -> int:
        return len(self.ids)

    def name(self, index: int) -> str:
        """Return the file name of an image."""
        return self.names[index].decode(errors="surrogatepass")

    def size(self, index: int) -> tuple[int, int]:
        """Return the (height, width) of an image in pixels, as in the JSON."""
        height, width = self.sizes[index].tolist()
        return height, width


class Annotation(NamedTuple):
    """A checked annotation.

    Args:
        annotation_id: unique id.
        image_index: index of its image among the images of the file.
        class_index: contiguous class.
        box: (x, y, w, h) in pixels.
        area: in square pixels.
        iscrowd: True for a region that covers several objects.
        ignore: True for an object that VOC's evaluation does not count ("difficult").
        polygons: flat ``(x0, y0, x1, y1, ...)`` float64 arrays in pixels; empty if there are none.
        code: compressed run-length code; empty if there is none.
        keypoints: 3 K numbers (x, y, visibility), or None.
        rotated_box: (cx, cy, w, h, degrees counterclockwise), or None.
    """

    annotation_id: int
    image_index: int
    class_index: int
    box: XYWHBox
    area: float
    iscrowd: bool
    ignore: bool
    polygons: Sequence[np.ndarray]
    code: bytes
    keypoints: Sequence[float] | None
    rotated_box: Sequence[float] | None


@dataclasses.dataclass(frozen=True)
class FlatAnnotations:
    """The A annotations of a file, sorted by image.

    Polygons are numbered consecutively: annotation ``a`` has the polygons ``polygon_range[a] ... polygon_range[a + 1]``,
    and polygon ``p`` has the coordinates ``coordinates[coordinate_range[p] : coordinate_range[p + 1]]``.

    Args:
        image_range: ``(images + 1,)`` int64; image ``i`` has the annotations ``image_range[i] ... image_range[i + 1]``.
        ids: ``(A,)`` int64.
        classes: ``(A,)`` int64, contiguous.
        boxes: ``(A, 4)`` float64 as (x, y, w, h) in pixels.
        areas: ``(A,)`` float64.
        iscrowd: ``(A,)`` bool.
        ignore: ``(A,)`` bool.
        polygon_range: ``(A + 1,)`` int64.
        coordinate_range: ``(P + 1,)`` int64.
        coordinates: float64, x and y alternating.
        codes: A compressed run-length codes; empty strings for annotations without one.
        keypoints: ``(A, K, 3)`` float32, zeros for annotations without keypoints; None if they are not read.
        rotated_boxes: ``(A, 5)`` float32; None if no annotation has one.
    """

    image_range: np.ndarray
    ids: np.ndarray
    classes: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    iscrowd: np.ndarray
    ignore: np.ndarray
    polygon_range: np.ndarray
    coordinate_range: np.ndarray
    coordinates: np.ndarray
    codes: FlatStrings
    keypoints: np.ndarray | None
    rotated_boxes: np.ndarray | None

    @classmethod
    def of(
        cls, annotations: Sequence[Annotation], *, num_images: int, num_keypoints: int | None
    ) -> FlatAnnotations:
        """Sort annotations by image and flatten them.

        Args:
            annotations: in any order; those of one image keep their order.
            num_images: number of images.
            num_keypoints: number of keypoints per object, or None for no keypoints.
        """
        ordered = sorted(annotations, key=lambda a: a.image_index)
        image_indices = np.array([a.image_index for a in ordered], dtype=np.int64)
        polygons = [polygon for a in ordered for polygon in a.polygons]
        return cls(
            image_range=_offsets(np.bincount(image_indices, minlength=num_images)),
            ids=np.array([a.annotation_id for a in ordered], dtype=np.int64),
            classes=np.array([a.class_index for a in ordered], dtype=np.int64),
            boxes=np.array([a.box for a in ordered], dtype=np.float64).reshape(-1, 4),
            areas=np.array([a.area for a in ordered], dtype=np.float64),
            iscrowd=np.array([a.iscrowd for a in ordered], dtype=bool),
            ignore=np.array([a.ignore for a in ordered], dtype=bool),
            polygon_range=_offsets([len(a.polygons) for a in ordered]),
            coordinate_range=_offsets([len(polygon) for polygon in polygons]),
            coordinates=np.concatenate(polygons) if polygons else np.zeros(0),
            codes=FlatStrings.of([a.code for a in ordered]),
            keypoints=None if num_keypoints is None else _flatten_keypoints(ordered, num_keypoints),
            rotated_boxes=_flatten_rotated_boxes(ordered),
        )

    def of_image(self, index: int) -> range:
        """Return the range of annotations of an image."""
        return range(int(self.image_range[index]), int(self.image_range[index + 1]))

    def sum_over_images(self, values: np.ndarray) -> np.ndarray:
        """Sum one number per annotation over the annotations of each image.

        Args:
            values: ``(A,)`` numbers.

        Returns:
            ``(images,)`` int64 sums.
        """
        num_images = len(self.image_range) - 1
        image_indices = np.repeat(np.arange(num_images), np.diff(self.image_range))
        return np.bincount(image_indices, weights=values, minlength=num_images).astype(np.int64)

    def has_regions(self) -> bool:
        """Return True if any annotation has polygons or a run-length code."""
        return bool(self.polygon_range[-1] > 0 or self.codes.offsets[-1] > 0)

    def polygons(self, annotation: int) -> list[np.ndarray]:
        """Return the polygons of an annotation as flat float64 arrays."""
        start, end = self.polygon_range[annotation], self.polygon_range[annotation + 1]
        bounds = self.coordinate_range
        return [self.coordinates[bounds[p] : bounds[p + 1]] for p in range(start, end)]

    def segment(self, annotation: int, size: tuple[int, int]) -> Segment:
        """Return the region of an annotation.

        Args:
            annotation: index of the annotation.
            size: (height, width) of the image in the JSON, which is the size of its run-length codes.
        """
        code = self.codes[annotation]
        if code:
            return {"size": list(size), "counts": code}
        return self.polygons(annotation) or None


def _flatten_keypoints(annotations: Sequence[Annotation], num_keypoints: int) -> np.ndarray:
    keypoints = np.zeros((len(annotations), num_keypoints, 3), dtype=np.float32)
    for row, annotation in enumerate(annotations):
        if annotation.keypoints is not None:
            keypoints[row] = np.asarray(annotation.keypoints, dtype=np.float32).reshape(-1, 3)
    return keypoints


def _flatten_rotated_boxes(annotations: Sequence[Annotation]) -> np.ndarray | None:
    """Return ``(A, 5)`` boxes, with an angle of 0 for annotations that have only an upright box."""
    if all(annotation.rotated_box is None for annotation in annotations):
        return None
    rows = [a.rotated_box if a.rotated_box is not None else _as_rotated(a.box) for a in annotations]
    return np.array(rows, dtype=np.float32).reshape(-1, 5)


def _as_rotated(box: XYWHBox) -> Sequence[float]:
    x, y, w, h = box
    return (x + w / 2, y + h / 2, w, h, 0.0)


def _offsets(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return the start of each of N consecutive ranges, and the end of the last one."""
    return np.concatenate([[0], np.cumsum(np.asarray(lengths, dtype=np.int64))]).astype(np.int64)
