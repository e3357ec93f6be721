"""Boxes of COCO annotations: upright ones, and the forms in which tools write rotated ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hydet.data.coco.annotation_fields import read_numbers
from hydet.data.coco.flat_storage import XYWHBox
from hydet.data.coco.json_file import ImageEntry
from hydet.data.coco.json_values import shorten
from hydet.data.coco.problems import BrokenAnnotationError, ProblemHandler
from hydet.data.coco.regions import FAR_OUTSIDE, Region, box_around_region
from hydet.data.coco.rotated_shapes import (
    RotatedBox,
    box_around_points,
    corners_of,
    cvat_rotation,
    is_upright,
    quadrilateral_of,
    smallest_rotated_box,
)
from hydet.structures.box_ops import wrap_angles

__all__ = ["BORDER_TOLERANCE", "AnnotationBoxes", "read_boxes"]

BORDER_TOLERANCE = 1.0  # pixels by which labels may exceed the image, because files have rounded numbers
_NUMBER_TYPES = {int, float}  # exact types, because bool is a subclass of int
_MIN_SIDE = 1e-5  # pixels; models do not use smaller boxes
_FLOAT32_STEP = 2.0**-22  # a smaller side, relative to the coordinates, vanishes in float32


class AnnotationBoxes(NamedTuple):
    """The boxes of one annotation.

    Args:
        upright: in pixels; a box that reaches over the border by a pixel at most stays as it is in the file.
        rotated: the rotated box, or None.
        corners: x and y of the corners that replace the polygon of a rectangle that CVAT turned, else None.
    """

    upright: XYWHBox
    rotated: RotatedBox | None = None
    corners: Sequence[float] | None = None


def read_boxes(
    entry: Mapping[str, object],
    description: str,
    image: ImageEntry,
    region: Region,
    *,
    rotated_from_polygons: bool,
    problems: ProblemHandler,
) -> AnnotationBoxes:
    """Read the upright box of an annotation, and the rotated box if there is one.

    A rotated box comes from ``rotated_bbox`` or from a ``bbox`` of five numbers (cx, cy, w, h, degrees), or eight (four
    corners), or from CVAT's ``attributes.rotation``, which turns ``bbox`` clockwise about its center.

    Args:
        entry: the annotation.
        description: file name and annotation id, for messages.
        image: the image of the annotation.
        region: its region, which replaces a broken box.
        rotated_from_polygons: True to read polygons of four points as rotated boxes.
        problems: receives the problems.

    Raises:
        BrokenAnnotationError: if the annotation has no box in the image, or the policy does not allow a repair.
    """
    if not rotated_from_polygons and not entry.get("attributes") and entry.get("rotated_bbox") is None:
        plain = _read_plain_box(entry.get("bbox"), image)
        if plain is not None:
            return AnnotationBoxes(plain)
    values = _read_box_values(entry.get("bbox"), description, image, region, problems)
    rotated = _read_rotated_box(entry.get("rotated_bbox"), description, image, problems)
    corners: Sequence[float] | None = None
    if len(values) != 4:
        turned = _to_rotated_box(values, image)
        assert turned is not None  # checked by _read_box_values
        values = box_around_points(values if len(values) == 8 else corners_of(turned))
        rotated = rotated or turned
    segmentation = entry.get("segmentation")
    degrees = cvat_rotation(entry.get("attributes"))
    quadrilateral = quadrilateral_of(segmentation) if degrees or rotated_from_polygons else None
    if degrees and rotated is None and (not segmentation or _is_rectangle(quadrilateral, values)):
        x, y, w, h = values
        rotated = (x + w / 2, y + h / 2, w, h, degrees)
        corners = corners_of(rotated)
        values = box_around_points(corners)
        message = f"{description}: the box is turned by {-degrees:g} degrees in CVAT"
        problems.note("rotation_attribute", message, action="read as a rotated box")
    elif rotated_from_polygons and rotated is None and quadrilateral is not None:
        rotated = _to_rotated_box(quadrilateral, image)
    upright = _clip(values, description, image, is_rotated=rotated is not None, problems=problems)
    return AnnotationBoxes(upright, rotated, corners)


def _read_plain_box(value: object, image: ImageEntry) -> XYWHBox | None:
    """Return the numbers of a ``bbox`` inside the image with sides above a pixel; None for all that needs more checks."""
    if type(value) is not list or len(value) != 4:
        return None
    x, y, w, h = value
    if not {type(x), type(y), type(w), type(h)} <= _NUMBER_TYPES:
        return None
    # Comparisons with NaN are False.
    is_inside = x >= 0 and y >= 0 and w > 1 and h > 1 and x + w <= image.width and y + h <= image.height
    return (x, y, w, h) if is_inside else None


def _is_rectangle(quadrilateral: Sequence[float] | None, box: Sequence[float]) -> bool:
    """Return True if four points are the corners of an upright (x, y, w, h) box."""
    if quadrilateral is None or not is_upright(quadrilateral):
        return False
    around = box_around_points(quadrilateral)
    return all(abs(a - b) <= BORDER_TOLERANCE for a, b in zip(around, box))


def _read_box_values(
    value: object, description: str, image: ImageEntry, region: Region, problems: ProblemHandler
) -> Sequence[float]:
    """Return the four, five or eight numbers of ``bbox``, or a box around the region if they are broken."""
    values = read_numbers(value, "bbox", description, problems)
    if values is None or len(values) not in (4, 5, 8):
        kind, reason = "bad_box", f"bbox must be four numbers, got {shorten(value)}"
    elif len(values) != 8 and min(values[2:4]) <= max(_MIN_SIDE, _FLOAT32_STEP * max(map(abs, values[:2]))):
        kind, reason = "empty_box", f"box {shorten(values)} (x, y, width, height) has no area"
    elif len(values) != 4 and _to_rotated_box(values, image) is None:
        kind, reason = "bad_box", f"box {shorten(values)} is not a rotated box in or near the image"
    else:
        return values
    box = box_around_region(region, image)
    if box is None:
        raise BrokenAnnotationError(kind, reason)
    if value in (None, []):  # the mask has all the information
        problems.add(kind, f"{description}: {reason}", action="taken from its mask")
    else:
        problems.repair(kind, description, reason, action="taken from its mask")
    return box


def _read_rotated_box(
    value: object, description: str, image: ImageEntry, problems: ProblemHandler
) -> RotatedBox | None:
    if value is None:
        return None
    values = read_numbers(value, "rotated_bbox", description, problems)
    rotated = None if values is None else _to_rotated_box(values, image)
    if rotated is None:
        reason = f"rotated box {shorten(value)} is broken"
        problems.repair("bad_box", description, reason, action="replaced by the upright box")
    return rotated


def _to_rotated_box(values: Sequence[float], image: ImageEntry) -> RotatedBox | None:
    """Return the rotated box of five numbers or of four corners; None if it has no area or lies far outside."""
    limit = FAR_OUTSIDE * max(image.height, image.width)
    if any(abs(v) > limit for v in (values[:4] if len(values) == 5 else values)):
        return None
    if len(values) == 8:
        return smallest_rotated_box(values)
    if len(values) != 5 or min(values[2:4]) <= _MIN_SIDE:
        return None
    cx, cy, w, h, degrees = (float(v) for v in values)
    return cx, cy, w, h, degrees if abs(degrees) <= 360 else wrap_angles(degrees)


def _clip(
    values: Sequence[float],
    description: str,
    image: ImageEntry,
    *,
    is_rotated: bool,
    problems: ProblemHandler,
) -> XYWHBox:
    """Clip an upright box that reaches over the border of the image by more than rounding explains."""
    x, y, w, h = (float(v) for v in values)
    left, top = max(x, 0.0), max(y, 0.0)
    right, bottom = min(x + w, image.width), min(y + h, image.height)
    size = f"the image of {image.width} x {image.height}"
    if right - left <= _MIN_SIDE or bottom - top <= _MIN_SIDE:
        raise BrokenAnnotationError("box_outside", f"box {shorten(list(values))} lies outside {size}")
    excess = max(left - x, top - y, x + w - right, y + h - bottom)
    # A rotated box at the border stays as it is: it describes the whole object, and cannot be clipped.
    if excess > BORDER_TOLERANCE and not is_rotated:
        message = f"{description}: box {shorten(list(values))} exceeds {size}"
        problems.add("box_over_border", message, action="clamped")
        return left, top, right - left, bottom - top
    return x, y, w, h
