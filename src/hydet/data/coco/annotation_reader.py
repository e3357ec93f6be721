"""Reading of the annotations in a COCO JSON file; the data policy decides on repairs of broken ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hydet.data.coco.flat_storage import Annotation, XYWHBox
from hydet.data.coco.json_file import CocoFile, ImageEntry
from hydet.data.coco.json_values import are_finite, is_finite, is_int, shorten
from hydet.data.coco.problems import BrokenAnnotationError, ProblemHandler
from hydet.data.coco.regions import Region, box_around_region, read_region

__all__ = ["read_annotations"]

_BORDER_TOLERANCE = 1.0  # pixels by which a box may exceed the image, because files have rounded numbers


def read_annotations(
    file: CocoFile,
    *,
    class_of: Mapping[int, int],
    num_keypoints: int | None,
    with_masks: bool,
    problems: ProblemHandler,
) -> list[Annotation]:
    """Read the annotations of a file, in the file's order, without those that cannot be used.

    Clears ``file.annotation_entries`` to free the parsed JSON.

    Args:
        file: the content of the file.
        class_of: contiguous class of each category id to read.
        num_keypoints: number of keypoints per object; None to read none.
        with_masks: True to read regions.
        problems: receives the problems.
    """
    reader = _AnnotationReader(
        file, class_of=class_of, num_keypoints=num_keypoints, with_masks=with_masks, problems=problems
    )
    annotations = []
    for position, entry in enumerate(file.annotation_entries):
        annotation = reader.read(position, entry)
        if annotation is not None:
            annotations.append(annotation)
    file.annotation_entries = []
    return annotations


class _Target(NamedTuple):
    """The image and the class of an annotation, and its id."""

    annotation_id: int
    image_index: int
    class_index: int
    description: str  # file name and annotation id, for messages


class _AnnotationReader:
    """Reads single entries of ``annotations``; see :func:`read_annotations` for the arguments."""

    def __init__(
        self,
        file: CocoFile,
        *,
        class_of: Mapping[int, int],
        num_keypoints: int | None,
        with_masks: bool,
        problems: ProblemHandler,
    ) -> None:
        self.file = file
        self.class_of = class_of
        self.num_keypoints = num_keypoints
        self.with_masks = with_masks
        self.problems = problems
        self._image_index = {image.image_id: i for i, image in enumerate(file.images)}
        entries = [entry for entry in file.annotation_entries if isinstance(entry, dict)]
        self._expects_regions = with_masks and any(entry.get("segmentation") for entry in entries)
        self._used_ids: set[int] = set()
        self._next_free_id = 1 + max((e["id"] for e in entries if is_int(e.get("id"))), default=0)

    def read(self, position: int, entry: object) -> Annotation | None:
        """Return an annotation, or None if it is dropped or its category is not in use."""
        if not isinstance(entry, dict):
            message = f"annotation {position} is not a mapping: {shorten(entry)}"
            self.problems.add("bad_annotation", message)
            return None
        target = self._find_target(entry)
        if target is None:
            return None
        try:
            annotation = self._parse(entry, target)
        except BrokenAnnotationError as error:
            self.problems.add(error.kind, f"{target.description}: {error}")
            return None
        self._used_ids.add(target.annotation_id)
        return annotation

    def _find_target(self, entry: Mapping[str, object]) -> _Target | None:
        annotation_id = entry.get("id")
        if not is_int(annotation_id):
            annotation_id = self._free_id()
        image_id = entry.get("image_id")
        image_index = self._image_index.get(image_id) if is_int(image_id) else None
        if image_index is None:
            if not is_int(image_id) or image_id not in self.file.skipped_image_ids:
                message = f"annotation {annotation_id}: there is no image with id {shorten(image_id)}"
                self.problems.add("unknown_image", message)
            return None
        description = f"{self.file.images[image_index].file_name}, annotation {annotation_id}"
        category_id = entry.get("category_id")
        if not is_int(category_id) or category_id not in self.class_of:
            if not is_int(category_id) or category_id not in self.file.categories:
                message = f"{description}: there is no category with id {shorten(category_id)}"
                self.problems.add("unknown_category", message)
            return None
        if annotation_id in self._used_ids:
            message = f"{description}: another annotation has the same id"
            action = "renumbered" if self.problems.repairs else "dropped"
            self.problems.add("duplicate_annotation_id", message, action=action)
            if not self.problems.repairs:
                return None
            annotation_id = self._free_id()
        return _Target(annotation_id, image_index, self.class_of[category_id], description)

    def _free_id(self) -> int:
        self._next_free_id += 1
        return self._next_free_id - 1

    def _parse(self, entry: Mapping[str, object], target: _Target) -> Annotation:
        image, description = self.file.images[target.image_index], target.description
        region = Region()
        if self.with_masks:
            region = read_region(entry.get("segmentation"), description, image, self.problems)
        box, rotated_box = self._read_boxes(entry, description, image, region)
        if self._expects_regions and not entry.get("segmentation"):
            reason = "it has no segmentation, but other annotations have"
            self.problems.repair("no_region", description, reason, action="kept for its box")
        keypoints = None
        if self.num_keypoints is not None and entry.get("keypoints") is not None:
            keypoints = self._read_keypoints(entry["keypoints"], description, self.num_keypoints)
        area = entry.get("area")
        return Annotation(
            annotation_id=target.annotation_id,
            image_index=target.image_index,
            class_index=target.class_index,
            box=box,
            area=float(area) if is_finite(area) and area > 0 else box[2] * box[3],
            iscrowd=bool(entry.get("iscrowd", 0)),
            ignore=bool(entry.get("ignore", 0) or entry.get("difficult", 0)),  # VOC has "difficult"
            polygons=region.polygons,
            code=region.code,
            keypoints=keypoints,
            rotated_box=rotated_box,
        )

    def _read_boxes(
        self, entry: Mapping[str, object], description: str, image: ImageEntry, region: Region
    ) -> tuple[XYWHBox, Sequence[float] | None]:
        """Return the axis-aligned box, and the rotated box if there is one."""
        values = self._read_box_values(entry.get("bbox"), description, image, region)
        rotated: object = entry.get("rotated_bbox")
        if len(values) == 5:
            rotated, values = values, _enclosing_box(values)
        x, y, w, h = (float(v) for v in values)
        left, top = max(x, 0.0), max(y, 0.0)
        right, bottom = min(x + w, image.width), min(y + h, image.height)
        size = f"the image of {image.width} x {image.height}"
        if right <= left or bottom <= top:
            raise BrokenAnnotationError("box_outside", f"box {shorten(list(values))} lies outside {size}")
        excess = max(left - x, top - y, x + w - right, y + h - bottom)
        # A rotated box at the border stays as it is: it describes the whole object, and cannot be clipped.
        if excess > _BORDER_TOLERANCE and rotated is None:
            reason = f"box {shorten(list(values))} exceeds {size}"
            self.problems.repair("box_over_border", description, reason, action="clamped")
            x, y, w, h = left, top, right - left, bottom - top
        return (x, y, w, h), self._read_rotated_box(rotated, description)

    def _read_box_values(
        self, values: object, description: str, image: ImageEntry, region: Region
    ) -> Sequence[float]:
        """Return the four or five numbers of ``bbox``, or a box around the region if they are broken."""
        if not are_finite(values) or len(values) not in (4, 5):
            kind, reason = "bad_box", f"bbox must be four numbers, got {shorten(values)}"
        elif not (values[2] > 0 and values[3] > 0):
            kind, reason = "empty_box", f"box {shorten(values)} (x, y, width, height) has no area"
        else:
            return values
        box = box_around_region(region, image)
        if box is None:
            raise BrokenAnnotationError(kind, reason)
        self.problems.repair(kind, description, reason, action="taken from its mask")
        return box

    def _read_rotated_box(self, values: object, description: str) -> Sequence[float] | None:
        if values is None:
            return None
        if are_finite(values) and len(values) == 5 and values[2] > 0 and values[3] > 0:
            return tuple(float(v) for v in values)
        reason = f"rotated box {shorten(values)} is broken"
        self.problems.repair("bad_box", description, reason, action="replaced by the upright box")
        return None

    def _read_keypoints(self, values: object, description: str, num_keypoints: int) -> Sequence[float] | None:
        if are_finite(values) and len(values) == 3 * num_keypoints:
            return values
        got = len(values) if isinstance(values, list) else shorten(values)
        reason = f"keypoints must be {3 * num_keypoints} numbers, got {got}"
        self.problems.repair("bad_keypoints", description, reason, action="left out")
        return None


def _enclosing_box(rotated_box: Sequence[float]) -> XYWHBox:
    """Return the axis-aligned box around a rotated box ``(cx, cy, w, h, degrees)``."""
    cx, cy, w, h, degrees = rotated_box
    cos, sin = abs(math.cos(math.radians(degrees))), abs(math.sin(math.radians(degrees)))
    width, height = cos * w + sin * h, sin * w + cos * h
    return (cx - width / 2, cy - height / 2, width, height)
