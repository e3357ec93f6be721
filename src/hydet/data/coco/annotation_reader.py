"""Reading of the annotations in a COCO JSON file; the data policy decides on repairs of broken ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from hydet.data.coco.annotation_boxes import read_boxes
from hydet.data.coco.annotation_fields import read_area, read_flag, read_keypoints
from hydet.data.coco.corner_boxes import are_corner_boxes
from hydet.data.coco.flat_storage import Annotation
from hydet.data.coco.json_file import CocoFile
from hydet.data.coco.json_values import shorten, to_int, unused_ids
from hydet.data.coco.plain_regions import find_plain_regions
from hydet.data.coco.problems import BrokenAnnotationError, ProblemHandler
from hydet.data.coco.regions import Region, has_region, read_region, region_area
from hydet.data.coco.repeated_ids import RepeatedIds
from hydet.data.coco.rotated_shapes import is_upright, quadrilateral_of
from hydet.data.datasets.report import DataReport
from hydet.data.errors import DataError

__all__ = ["read_annotations"]


def read_annotations(
    file: CocoFile,
    *,
    class_of: Mapping[int, int],
    num_keypoints: int | None,
    with_masks: bool,
    rotated_from_polygons: bool | None,
    problems: ProblemHandler,
) -> list[Annotation]:
    """Read the annotations of a file, in the file's order, without those that cannot be used.

    Clears ``file.annotation_entries`` to free the parsed JSON.

    Args:
        file: the content of the file.
        class_of: contiguous class of each category id to read.
        num_keypoints: number of keypoints per object; None to read none.
        with_masks: True to read regions.
        rotated_from_polygons: True to read polygons of four points as rotated boxes too; None to do so if all objects
            have such a polygon, and one of them is not an upright rectangle.
        problems: receives the problems.

    Raises:
        DataError: if the boxes are relative to the size of the image or are written as two corners, or anything is broken
            and the policy is ``"raise"``.
    """
    if are_corner_boxes(file):
        raise DataError(
            f"{file.path}: all boxes fit their images as two corners (x1, y1, x2, y2), and many reach far outside as "
            "(x, y, width, height), which COCO's boxes are; subtract the first corner from the second one"
        )
    if rotated_from_polygons is None:
        rotated_from_polygons = _are_rotated_quadrilaterals(file.annotation_entries)
    reader = _AnnotationReader(
        file,
        class_of=class_of,
        num_keypoints=num_keypoints,
        with_masks=with_masks,
        rotated_from_polygons=rotated_from_polygons,
        problems=problems,
    )
    annotations = []
    for position, entry in enumerate(file.annotation_entries):
        annotation = reader.read(position, entry)
        if annotation is not None:
            annotations.append(annotation)
    file.annotation_entries = []
    if _are_relative(annotations):
        raise DataError(
            f"{file.path}: all boxes lie between 0 and 1, so they are relative to the size of the images; COCO's boxes "
            "are (x, y, width, height) in pixels, so multiply them by the size, or export in COCO's format"
        )
    return annotations


def _are_relative(annotations: Sequence[Annotation]) -> bool:
    """Return True if all boxes lie between 0 and 1 and are not whole pixels."""
    if any(x + w > 1 or y + h > 1 for x, y, w, h in (annotation.box for annotation in annotations)):
        return False
    return any(number % 1 for annotation in annotations for number in annotation.box)


def _are_rotated_quadrilaterals(entries: list[object]) -> bool:
    """Return True if all objects have a polygon of four points, and one of them is not an upright rectangle."""
    any_rotated = False
    for entry in entries:
        polygon = quadrilateral_of(entry.get("segmentation")) if isinstance(entry, dict) else None
        if polygon is None:
            return False
        any_rotated = any_rotated or not is_upright(polygon)
    return any_rotated


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
        rotated_from_polygons: bool,
        problems: ProblemHandler,
    ) -> None:
        self.file = file
        self.class_of = class_of
        self.num_keypoints = num_keypoints
        self.with_masks = with_masks
        self.rotated_from_polygons = rotated_from_polygons
        self.problems = problems
        self._image_index = {image.image_id: i for i, image in enumerate(file.images)}
        entries = [entry for entry in file.annotation_entries if isinstance(entry, dict)]
        self._expects_regions = with_masks and any(has_region(entry.get("segmentation")) for entry in entries)
        self._plain_regions = (
            find_plain_regions(file.annotation_entries, file.images, file.image_ids) if with_masks else {}
        )
        self._used_ids = RepeatedIds()
        ids = (to_int(entry.get("id")) for entry in entries)
        self._free_ids = unused_ids(number for number in ids if number is not None)

    def read(self, position: int, entry: object) -> Annotation | None:
        """Return an annotation, or None if it is dropped or its category is not in use."""
        if not isinstance(entry, dict):
            message = f"annotation {position} is not a mapping: {shorten(entry)}"
            self.problems.add("bad_annotation", message, names_image=False)
            return None
        target = self._find_target(entry)
        if target is None:
            return None
        try:
            annotation = self._parse(position, entry, target)
        except BrokenAnnotationError as error:
            self.problems.add(error.kind, f"{target.description}: {error}")
            return None
        self._used_ids.add(target.annotation_id, entry)
        return annotation

    def _find_target(self, entry: Mapping[str, object]) -> _Target | None:
        annotation_id = to_int(entry.get("id"))
        has_other_id = annotation_id is None and entry.get("id") is not None
        if annotation_id is None:
            annotation_id = next(self._free_ids)
        image_id = self.file.image_ids.find(entry.get("image_id"))
        image_index = self._image_index.get(image_id) if image_id is not None else None
        if image_index is None:
            if image_id not in self.file.skipped_image_ids:
                known = self.file.images[:1]
                hint = f"; 'images' has ids such as {known[0].image_id}" if known else ""
                message = f"annotation {annotation_id}: there is no image with id {shorten(entry.get('image_id'))}{hint}"
                self.problems.add("unknown_image", message, names_image=False)
            return None
        description = f"{self.file.images[image_index].file_name}, annotation {annotation_id}"
        if has_other_id:
            message = f"{description}: id {shorten(entry['id'])} is not an integer of 64 bits"
            self.problems.note("renumbered_annotation_id", message, action="renumbered")
        category_id = self.file.category_ids.find(entry.get("category_id"))
        class_index = None if category_id is None else self.class_of.get(category_id)
        if class_index is None:
            if category_id not in self.file.categories:
                listed = shorten(list(self.file.categories))
                message = (
                    f"{description}: there is no category with id {shorten(entry.get('category_id'))}, only {listed}; "
                    "add it to 'categories' of the file"
                )
                self.problems.add("unknown_category", message)
            return None
        if annotation_id in self._used_ids:
            is_copy = self._used_ids.is_copy(annotation_id, entry)
            message = f"{description}: another annotation has the same id{' and content' if is_copy else ''}"
            action = "dropped" if is_copy else "renumbered"
            self.problems.add("duplicate_annotation_id", message, action=action)
            if is_copy:
                return None
            annotation_id = next(self._free_ids)
        return _Target(annotation_id, image_index, class_index, description)

    def _parse(self, position: int, entry: Mapping[str, object], target: _Target) -> Annotation:
        image, description = self.file.images[target.image_index], target.description
        problems, region = self.problems, Region()
        if self.with_masks:
            region = self._plain_regions.get(position) or read_region(
                entry.get("segmentation"), description, image, problems
            )
        boxes = read_boxes(
            entry,
            description,
            image,
            region,
            rotated_from_polygons=self.rotated_from_polygons,
            problems=problems,
        )
        if boxes.corners is not None and region.polygons:
            region = Region(polygons=[np.array(boxes.corners)])
        if self._expects_regions and not has_region(entry.get("segmentation")):
            message = f"{description}: it has no mask, but other objects have"
            problems.note("no_region", message, action="kept for its box")
        keypoints = None
        if self.num_keypoints is not None and entry.get("keypoints") is not None:
            keypoints = read_keypoints(entry["keypoints"], self.num_keypoints, description, image, problems)
        area = read_area(entry, description, problems)
        if area is None:
            area = region_area(self._region_of(entry, target, region), image)
        iscrowd = read_flag(entry, "iscrowd", description, problems)
        ignore = read_flag(entry, "ignore", description, problems)
        difficult = read_flag(entry, "difficult", description, problems)
        return Annotation(
            annotation_id=target.annotation_id,
            image_index=target.image_index,
            class_index=target.class_index,
            box=boxes.upright,
            area=area or boxes.upright[2] * boxes.upright[3],
            iscrowd=iscrowd,
            ignore=ignore or difficult,  # VOC has "difficult"
            polygons=region.polygons,
            code=region.code,
            keypoints=keypoints,
            rotated_box=boxes.rotated,
        )

    def _region_of(self, entry: Mapping[str, object], target: _Target, region: Region) -> Region:
        """Return the region for the area of an object, also if no regions are read otherwise."""
        if self.with_masks:
            return region
        ignored = ProblemHandler(self.problems.path, policy="drop", report=DataReport(""))
        return read_region(
            entry.get("segmentation"), target.description, self.file.images[target.image_index], ignored
        )
