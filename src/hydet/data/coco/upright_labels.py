"""Frames of EXIF-rotated images: boxes that fit only one of the stored and the upright image decide.

Label Studio writes the size of the stored image, with boxes in the upright one. The size alone would then turn the image
into the wrong frame.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from hydet.data.coco.annotation_boxes import BORDER_TOLERANCE
from hydet.data.coco.ids import IdTable
from hydet.data.coco.json_file import CocoFile, ImageEntry
from hydet.data.coco.json_values import are_finite, to_number
from hydet.data.coco.problems import ProblemHandler
from hydet.data.errors import DataError
from hydet.data.images.reading import read_image_header

__all__ = ["correct_rotated_sizes"]

Extent = tuple[float, float]  # largest (x, y) of the labels of an image
_Frame = Literal["upright", "stored"]


def correct_rotated_sizes(file: CocoFile, folder: Path, *, problems: ProblemHandler) -> None:
    """Exchange width and height of images whose labels fit only the exchanged size, if their EXIF rotation explains it.

    If the labels of some images decide, those of all other rotated images with the same choice of size in the JSON are
    assumed to be in the same frame: one tool wrote them all.

    Args:
        file: the content of the file; entries of ``images`` are replaced.
        folder: image folder.
        problems: receives one message per image.
    """
    extents = _extents_by_image(file.annotation_entries, file.image_ids)
    decided: dict[int, _Frame] = {}  # by index: the frame that the size in the JSON wrongly describes
    for index, image in enumerate(file.images):
        extent = extents.get(image.image_id)
        if extent is not None and not _fits(extent, image.height, image.width):
            frame = _frame_in_json(folder, image) if _fits(extent, image.width, image.height) else None
            if frame is not None:
                decided[index] = frame
    if not decided:
        return
    frames = Counter(decided.values())
    for index, image in enumerate(file.images):
        frame, reason = decided.get(index), "its labels fit only the other one"
        extent = extents.get(image.image_id)
        if (
            frame is None
            and len(frames) == 1
            and (extent is None or _fits(extent, image.width, image.height))
        ):
            frame, reason = _frame_in_json(folder, image), "the labels of other images fit only the other one"
            frame = frame if frame in frames else None
        if frame is None:
            continue
        file.images[index] = dataclasses.replace(image, height=image.width, width=image.height)
        message = f"{image.file_name}: the JSON has the size of the {frame} image, but {reason}"
        action = "read upright" if frame == "stored" else "not rotated"
        problems.note("other_orientation", message, action=action)


def _frame_in_json(folder: Path, image: ImageEntry) -> _Frame | None:
    """Return the frame that the size in the JSON belongs to, or None if the EXIF data do not exchange the sides."""
    size = image.height, image.width
    try:
        header = read_image_header(folder / image.file_name)
    except DataError:
        return None  # reported when it is read
    if header.upright_size == header.stored_size or header.upright_size != header.stored_size[::-1]:
        return None
    if size == header.stored_size:
        return "stored"
    return "upright" if size == header.upright_size else None


def _fits(extent: Extent, height: int, width: int) -> bool:
    return extent[0] <= width + BORDER_TOLERANCE and extent[1] <= height + BORDER_TOLERANCE


def _extents_by_image(entries: list[object], image_ids: IdTable) -> Mapping[int, Extent]:
    """Return the largest x and y of the labels of each image."""
    extents: dict[int, Extent] = {}
    for entry in entries:
        if not isinstance(entry, dict):
            continue
        image_id = image_ids.find(entry.get("image_id"))
        if image_id is None:
            continue
        extent = extents.get(image_id, (0.0, 0.0))
        for corner in _corners(entry):
            if corner[0] > extent[0] or corner[1] > extent[1]:
                extent = max(extent[0], corner[0]), max(extent[1], corner[1])
        extents[image_id] = extent
    return extents


def _corners(entry: Mapping[str, object]) -> Sequence[Extent]:
    """Return the far corner of the box of an annotation, or of its polygons if it has no box."""
    box, polygons = entry.get("bbox"), entry.get("segmentation")
    if box:
        numbers = _numbers(box)
        return [(numbers[0] + numbers[2], numbers[1] + numbers[3])] if len(numbers) == 4 else []
    points = [_numbers(polygon) for polygon in polygons] if isinstance(polygons, list) else []
    return [(max(p[0::2]), max(p[1::2])) for p in points if p and len(p) % 2 == 0]


def _numbers(values: object) -> Sequence[float]:
    """Return a list of numbers, some of which may be text; empty if it is something else."""
    if are_finite(values):
        return values
    numbers = [to_number(v) for v in values] if isinstance(values, list) else []
    return [] if None in numbers else [n for n in numbers if n is not None]
