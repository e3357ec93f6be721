"""Reading COCO's JSON: every entry is looked at, and what is broken is handled by a policy and reported."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from faster_coco_eval.core import mask as coco_mask

from hydet.data.annotations.rle import runs_of
from hydet.data.coco.flat_storage import AnnotationBuilder
from hydet.data.datasets.report import DataReport, Policy
from hydet.data.errors import DataError
from hydet.data.images.reading import read_image_size

__all__ = ["FEDERATED", "CocoFile", "CocoImage", "read_json"]

FEDERATED = ("neg_category_ids", "not_exhaustive_category_ids")
_NUMBERS = {int, float}
_TOLERANCE = 1.0  # pixels by which a box may stick out: files round


class _Broken(Exception):
    """An annotation that cannot be kept as it is."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


def read_json(path: str | Path) -> Any:
    """The content of a JSON file.

    Raises:
        DataError: if it is missing or not JSON.
    """
    try:
        with open(path, "rb") as file:
            return json.load(file)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    except ValueError as error:  # not JSON, or not text
        raise DataError(f"{path}: is not JSON: {' '.join(str(error).split())}") from error


class CocoImage:
    """An entry of ``images``; ``federated`` holds LVIS's lists of category ids, where there are such."""

    __slots__ = ("federated", "file_name", "height", "id", "width")

    def __init__(
        self, number: int, file_name: str, height: int, width: int, federated: Mapping[str, list[int]]
    ) -> None:
        self.id = number
        self.file_name = file_name
        self.height = height
        self.width = width
        self.federated = federated


class CocoFile:
    """A COCO JSON, checked.

    Args:
        json_path: of the file.
        image_folder: that ``file_name`` is relative to; where there is no such file, the last two parts of ``coco_url``.
        policy: ``"drop"`` leaves out what is broken, ``"clamp"`` first tries to repair it, ``"raise"`` does neither.
        report: takes what was found.

    Attributes:
        categories: by id, in the order of ids.
        images: those that can be used.
    """

    def __init__(self, json_path: Path, image_folder: Path, *, policy: Policy, report: DataReport) -> None:
        self.path = json_path
        self.folder = image_folder
        self.policy = policy
        self.report = report
        content = read_json(json_path)
        if not isinstance(content, dict) or not isinstance(content.get("images"), list):
            raise DataError(f"{json_path}: is not a COCO file: it has no list 'images'")
        self._annotations = content.get("annotations", [])
        if not isinstance(self._annotations, list):
            raise DataError(f"{json_path}: is not a COCO file: 'annotations' is not a list")
        self.categories = self._read_categories(content.get("categories"))
        self._skipped: set[int] = set()
        self.images = self._read_images(content["images"])

    def _problem(self, kind: str, message: str, action: str) -> None:
        if self.policy == "raise":
            raise DataError(f"{self.path}: {message}")
        self.report.add(kind, message, action=action)

    # Categories

    def _read_categories(self, entries: Any) -> dict[int, Mapping[str, Any]]:
        if not isinstance(entries, list) or not entries:
            raise DataError(f"{self.path}: is not a COCO file: it has no 'categories'")
        found: dict[int, Mapping[str, Any]] = {}
        names: set[str] = set()
        for entry in entries:
            if not isinstance(entry, dict) or not _is_int(entry.get("id")) or "name" not in entry:
                raise DataError(
                    f"{self.path}: a category needs an integer 'id' and a 'name', got {_short(entry)}"
                )
            if entry["id"] in found or entry["name"] in names:
                raise DataError(
                    f"{self.path}: category {entry['name']!r} with id {entry['id']} is there twice"
                )
            found[entry["id"]] = entry
            names.add(entry["name"])
        return dict(sorted(found.items()))

    # Images

    def _read_images(self, entries: list[Any]) -> list[CocoImage]:
        if not self.folder.is_dir():
            raise DataError(f"{self.folder}: no such folder of images")
        listing = _Listing(self.folder)
        found: dict[int, CocoImage] = {}
        for place, entry in enumerate(entries):
            names = _file_names(entry)
            if not names or not _is_int(entry.get("id")):
                message = f"image {place} needs an integer 'id' and a 'file_name', got {_short(entry)}"
                self._problem("bad_image_entry", message, "dropped")
                continue
            number = int(entry["id"])
            name = next((name for name in names if name in listing), names[0])
            if number in found:
                message = f"{name}: image id {number} belongs to {found[number].file_name} already"
                self._problem("duplicate_image_id", message, "dropped")
                continue
            if name not in listing:
                self._skipped.add(number)
                self._problem("missing_image", f"{self.folder / name}: no such file", "dropped")
                continue
            height, width = entry.get("height"), entry.get("width")
            if not (_is_int(height) and _is_int(width) and height > 0 and width > 0):
                try:
                    height, width = read_image_size(self.folder / name)
                except DataError as error:
                    self._skipped.add(number)
                    self._problem("unreadable_image", str(error), "dropped")
                    continue
            found[number] = CocoImage(number, name, int(height), int(width), _federated(entry))
        return list(found.values())

    # Annotations

    def read_annotations(
        self,
        class_of: Mapping[int, int],
        *,
        num_keypoints: int | None,
        with_masks: bool,
    ) -> AnnotationBuilder:
        """All annotations that can be used.

        Args:
            class_of: contiguous class of each category id that is wanted.
            num_keypoints: None if they are not to be read.
            with_masks: whether to read regions.
        """
        builder = AnnotationBuilder()
        place_of = {image.id: i for i, image in enumerate(self.images)}
        seen: set[int] = set()
        fresh = 1 + max(
            (e["id"] for e in self._annotations if isinstance(e, dict) and _is_int(e.get("id"))), default=0
        )
        expects_masks = with_masks and any(
            isinstance(e, dict) and e.get("segmentation") for e in self._annotations
        )
        for position, entry in enumerate(self._annotations):
            if not isinstance(entry, dict):
                message = f"annotation {position} is not a mapping: {_short(entry)}"
                self._problem("bad_annotation", message, "dropped")
                continue
            number = entry.get("id")
            if not _is_int(number):
                number, fresh = fresh, fresh + 1
            image_id = entry.get("image_id")
            place = place_of.get(image_id) if _is_int(image_id) else None
            if place is None:
                if image_id not in self._skipped:
                    message = f"annotation {number}: there is no image with id {_short(image_id)}"
                    self._problem("unknown_image", message, "dropped")
                continue
            image = self.images[place]
            who = f"{image.file_name}, annotation {number}"
            category = entry.get("category_id")
            if not _is_int(category) or category not in class_of:
                if not _is_int(category) or category not in self.categories:
                    message = f"{who}: there is no category with id {_short(category)}"
                    self._problem("unknown_category", message, "dropped")
                continue
            if number in seen:
                repaired = self.policy == "clamp"
                message = f"{who}: there is another annotation with this id"
                self._problem("duplicate_annotation_id", message, "renumbered" if repaired else "dropped")
                if not repaired:
                    continue
                number, fresh = fresh, fresh + 1
            try:
                self._add(builder, entry, who, image, num_keypoints, with_masks, expects_masks)
            except _Broken as broken:
                self._problem(broken.kind, f"{who}: {broken}", "dropped")
                continue
            seen.add(number)
            builder.images.append(place)
            builder.ids.append(number)
            builder.classes.append(class_of[category])
        self._annotations = []
        return builder

    def _add(
        self,
        builder: AnnotationBuilder,
        entry: dict[str, Any],
        who: str,
        image: CocoImage,
        num_keypoints: int | None,
        with_masks: bool,
        expects_masks: bool,
    ) -> None:
        polygons: list[np.ndarray] = []
        code = b""
        if with_masks:
            polygons, code = self._region(entry.get("segmentation"), who, image)
        box, rotated = self._box(entry, who, image, polygons, code)
        if expects_masks and not entry.get("segmentation"):
            self._repair("no_region", who, "it has no segmentation, though others have", "kept for its box")
        keypoints = None
        if num_keypoints is not None and entry.get("keypoints") is not None:
            keypoints = self._keypoints(entry["keypoints"], who, num_keypoints)
        area = entry.get("area")
        # From here on nothing fails: the lists stay equally long.
        builder.areas.append(float(area) if _is_finite(area) and area > 0 else box[2] * box[3])
        builder.boxes.append(box)
        builder.rotated_boxes.append(rotated)
        builder.iscrowd.append(bool(entry.get("iscrowd", 0)))
        builder.ignore.append(bool(entry.get("ignore", 0) or entry.get("difficult", 0)))
        builder.polygons.append(polygons)
        builder.codes.append(code)
        builder.keypoints.append(keypoints)

    def _repair(self, kind: str, who: str, reason: str, action: str) -> None:
        """Go on under ``"clamp"``, give up otherwise."""
        if self.policy != "clamp":
            raise _Broken(kind, reason)
        self._problem(kind, f"{who}: {reason}", action)

    def _box(
        self,
        entry: dict[str, Any],
        who: str,
        image: CocoImage,
        polygons: list[np.ndarray],
        code: bytes,
    ) -> tuple[tuple[float, float, float, float], tuple[float, ...] | None]:
        """(x, y, w, h), and the rotated box if there is one."""
        values: Any = entry.get("bbox")
        turned: Any = entry.get("rotated_bbox")
        problem = None
        if not _are_finite(values) or len(values) not in (4, 5):
            problem = ("bad_box", f"bbox must be four numbers, got {_short(values)}")
        elif not (values[2] > 0 and values[3] > 0):
            problem = ("empty_box", f"box {_short(values)} (x, y, width, height) has no area")
        if problem is not None:
            around = _box_around(polygons, code, image)
            if around is None:
                raise _Broken(*problem)
            self._repair(problem[0], who, problem[1], "taken from its mask")
            values = around
        if len(values) == 5:
            turned, values = values, _enclosing(values)
        x, y, w, h = (float(v) for v in values)
        left, top, right, bottom = max(x, 0.0), max(y, 0.0), min(x + w, image.width), min(y + h, image.height)
        frame = f"the image of {image.width} x {image.height}"
        if right <= left or bottom <= top:
            raise _Broken("box_outside", f"box {_short(list(values))} lies outside {frame}")
        excess = max(left - x, top - y, x + w - right, y + h - bottom)
        if excess > _TOLERANCE and turned is None:
            reason = f"box {_short(list(values))} reaches over the border of {frame}"
            self._repair("box_over_border", who, reason, "clamped")
            x, y, w, h = left, top, right - left, bottom - top
        if turned is not None:
            good = _are_finite(turned) and len(turned) == 5 and turned[2] > 0 and turned[3] > 0
            if not good:
                self._repair("bad_box", who, f"rotated box {_short(turned)} is broken", "taken as upright")
                turned = None
        return (x, y, w, h), None if turned is None else tuple(float(v) for v in turned)

    def _region(self, value: Any, who: str, image: CocoImage) -> tuple[list[np.ndarray], bytes]:
        """Polygons, or a compressed run-length code."""
        if not value:
            return [], b""
        if isinstance(value, dict):
            try:
                return [], _checked_code(value, image.height, image.width)
            except ValueError as error:
                self._repair("bad_rle", who, f"run-length code: {error}", "left out")
                return [], b""
        if not isinstance(value, list):
            self._repair("bad_segmentation", who, f"segmentation is {_short(value)}", "left out")
            return [], b""
        if all(isinstance(v, int | float) for v in value):
            value = [value]  # one polygon without the list around it
        found = []
        for polygon in value:
            if not _are_finite(polygon) or len(polygon) < 6 or len(polygon) % 2:
                reason = f"a polygon needs three points or more, each with x and y, got {_short(polygon)}"
                self._repair("bad_polygon", who, reason, "left out")
                continue
            found.append(np.array(polygon, dtype=np.float64))
        return found, b""

    def _keypoints(self, values: Any, who: str, num_keypoints: int) -> Sequence[float] | None:
        if not _are_finite(values) or len(values) != 3 * num_keypoints:
            got = len(values) if isinstance(values, list) else _short(values)
            reason = f"keypoints must be {3 * num_keypoints} numbers, got {got}"
            self._repair("bad_keypoints", who, reason, "left out")
            return None
        return values


class _Listing:
    """Which files exist: a folder is read once, which is faster than asking for each file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.read: dict[str, set[str]] = {}

    def __contains__(self, name: str) -> bool:
        parent, base = os.path.split(name)
        if parent not in self.read:
            try:
                self.read[parent] = {e.name for e in os.scandir(self.folder / parent) if not e.is_dir()}
            except OSError:
                self.read[parent] = set()
        return base in self.read[parent]


def _file_names(entry: Any) -> list[str]:
    """Where an image may be: LVIS has addresses that end in the folder and name of a COCO image instead of names."""
    if not isinstance(entry, dict):
        return []
    names = [str(entry["file_name"])] if entry.get("file_name") else []
    if isinstance(entry.get("coco_url"), str):
        names.append("/".join(entry["coco_url"].split("/")[-2:]))
    return names


def _federated(entry: Mapping[str, Any]) -> dict[str, list[int]]:
    """What LVIS says of an image: categories that are surely absent, and those of which some objects may be missing."""
    found = {key: entry.get(key) for key in FEDERATED}
    return {key: ids for key, ids in found.items() if isinstance(ids, list) and all(_is_int(i) for i in ids)}


def _is_int(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)


def _are_finite(values: Any) -> TypeGuard[Sequence[float]]:
    if not isinstance(values, list | tuple) or not {*map(type, values)} <= _NUMBERS:
        return False
    try:
        return math.isfinite(sum(values))  # far faster than one by one; no sum of coordinates overflows
    except OverflowError:
        return False


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _enclosing(box: Sequence[float]) -> list[float]:
    """(x, y, w, h) around a rotated box."""
    cx, cy, w, h, degrees = box
    c, s = abs(math.cos(math.radians(degrees))), abs(math.sin(math.radians(degrees)))
    width, height = c * w + s * h, s * w + c * h
    return [cx - width / 2, cy - height / 2, width, height]


def _box_around(polygons: list[np.ndarray], code: bytes, image: CocoImage) -> list[float] | None:
    if polygons:
        points = np.concatenate(polygons).reshape(-1, 2)
        low, high = points.min(axis=0), points.max(axis=0)
        box = [*low.tolist(), *(high - low).tolist()]
    elif code:
        box = coco_mask.toBbox([{"size": [image.height, image.width], "counts": code}])[0].tolist()
    else:
        return None
    return box if box[2] > 0 and box[3] > 0 else None


def _checked_code(code: Mapping[str, Any], height: int, width: int) -> bytes:
    """The counts in compressed form.

    Raises:
        ValueError: if the code is not one of an image of this size. (The C++ code would read over its end.)
    """
    size, counts = code.get("size"), code.get("counts")
    if not isinstance(size, list) or size != [height, width]:
        raise ValueError(f"its size is {_short(size)}, that of the image {[height, width]}")
    if isinstance(counts, list):
        runs = counts
        if not all(_is_int(run) for run in runs):
            raise ValueError("counts are not integers")
    elif isinstance(counts, str | bytes):
        runs = runs_of(counts).tolist()
    else:
        raise ValueError("there are no counts")
    if any(run < 0 for run in runs) or sum(runs) != height * width:
        raise ValueError(f"counts add up to {sum(runs)}, not to the {height * width} pixels of the image")
    if isinstance(counts, list):
        (packed,) = coco_mask.frPyObjects([{"size": [height, width], "counts": runs}], height, width)
        counts = packed["counts"]
    return counts.encode() if isinstance(counts, str) else bytes(counts)
