"""Regions of COCO annotations: polygons and run-length codes, checked against the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import mul
from typing import NamedTuple

import numpy as np
from faster_coco_eval.core import mask as coco_mask

from hydet.data.annotations.rle import decode_runs
from hydet.data.coco.json_file import ImageEntry
from hydet.data.coco.json_values import are_finite, is_int, shorten, to_number
from hydet.data.coco.problems import ProblemHandler

__all__ = [
    "FAR_OUTSIDE",
    "MAX_OUTLINE",
    "MIN_POLYGON_NUMBERS",
    "SURE_AREA",
    "SURE_WIDTH",
    "Region",
    "box_around_region",
    "has_region",
    "read_region",
    "region_area",
]

FAR_OUTSIDE = 10  # coordinates beyond this many times the image's longer side are mistakes
MIN_POLYGON_NUMBERS = 6  # three points
MAX_OUTLINE = 4_000_000  # pixels; rasterization needs 100 bytes per pixel of the outline
SURE_AREA = 16.0  # square pixels; a polygon of this area ...
SURE_WIDTH = 3.0  # ... and this mean width in pixels covers a pixel for sure


class Region(NamedTuple):
    """The region of an annotation: polygons, a run-length code, or neither.

    Args:
        polygons: flat ``(x0, y0, x1, y1, ...)`` float64 arrays in pixels.
        code: compressed counts of a run-length code with the size of the image; empty if there is none.
    """

    polygons: Sequence[np.ndarray] = ()
    code: bytes = b""


def read_region(value: object, description: str, image: ImageEntry, problems: ProblemHandler) -> Region:
    """Read the value of ``segmentation``.

    Args:
        value: a list of polygons, a single polygon, or a run-length code; a false value means no region.
        description: file name and annotation id, for messages.
        image: the image of the annotation.
        problems: receives the problems. With policy ``"clamp"``, broken polygons are left out and the others stay. With
            ``"drop"``, an incomplete region counts as none, because a mask without one of its parts is a wrong target.
            Polygons of one or two points cover no area, so the others are complete without them.

    Raises:
        DataError: if a part is broken and the policy is ``"raise"``.
    """
    if not has_region(value):
        return Region()
    if isinstance(value, dict):
        try:
            code = _check_code(value, image.height, image.width)
        except ValueError as error:
            problems.add("bad_rle", f"{description}: run-length code: {error}", action="left out")
            return Region()
        region = Region(code=code)
    elif isinstance(value, list):
        if all(isinstance(v, int | float | str) for v in value):
            value = [value]
        region = Region(polygons=_read_polygons(value, description, image, problems))
        if not region.polygons:
            return region
    else:
        message = f"{description}: segmentation is {shorten(value)}"
        problems.add("bad_segmentation", message, action="left out")
        return Region()
    if _is_empty(region, image):
        message = f"{description}: its segmentation covers no pixel of the image"
        problems.add("empty_region", message, action="left out")
        return Region()
    return region


def region_area(region: Region, image: ImageEntry) -> float | None:
    """Return the number of pixels that a region covers in its image, or None if there is no region."""
    size = [image.height, image.width]
    if region.code:
        return float(coco_mask.area([{"size": size, "counts": region.code}])[0])
    if not region.polygons:
        return None
    codes = coco_mask.frPyObjects([polygon.tolist() for polygon in region.polygons], *size)
    return float(coco_mask.area([coco_mask.merge(codes)])[0])


def has_region(value: object) -> bool:
    """Return True if the value of ``segmentation`` is more than one of the forms in which tools write no region."""
    return value not in (None, [], [[]], {}, "")


def _read_polygons(
    values: Sequence[object], description: str, image: ImageEntry, problems: ProblemHandler
) -> list[np.ndarray]:
    """Return the polygons that can be used; none if the policy is ``"drop"`` and a polygon with an area is broken."""
    polygons, is_complete = [], True
    limit = FAR_OUTSIDE * max(image.height, image.width)
    for value in values:
        polygon = value if are_finite(value) else _read_other_form(value)
        if polygon is None or len(polygon) < MIN_POLYGON_NUMBERS or len(polygon) % 2:
            reason = f"a polygon needs at least three points with x and y, got {shorten(value)}"
        elif (low := min(polygon)) < -limit or (high := max(polygon)) > limit:
            size = f"{image.width} x {image.height}"
            reason = f"polygon {shorten(value)} lies far outside the image of {size}"
        elif len(polygon) * (high - low) > MAX_OUTLINE and _is_too_long(polygon):  # first an upper bound
            reason = f"the outline of a polygon is longer than {MAX_OUTLINE} pixels"
        else:
            if polygon is not value:
                message = f"{description}: polygon {shorten(value)}"
                problems.note("other_number_format", message, action="read as numbers")
            polygons.append(np.array(polygon, dtype=np.float64))
            continue
        problems.add("bad_polygon", f"{description}: {reason}", action="left out")
        is_complete = is_complete and polygon is not None and len(polygon) in (0, 2, 4)
    return polygons if is_complete or problems.repairs else []


def _read_other_form(value: object) -> list[float] | None:
    """Return the numbers of a polygon that has text or pairs in place of numbers; None if it has other values."""
    if not isinstance(value, list):
        return None
    if value and all(isinstance(point, list) and len(point) == 2 for point in value):
        value = [number for point in value for number in point]
    numbers = [to_number(v) for v in value]
    return [n for n in numbers if n is not None] if None not in numbers else None


def _is_too_long(polygon: Sequence[float]) -> bool:
    """Return True if a polygon is too long to rasterize."""
    points = np.array(polygon, dtype=np.float64).reshape(-1, 2)
    return bool(np.abs(np.diff(points, axis=0)).sum() > MAX_OUTLINE)


def _is_empty(region: Region, image: ImageEntry) -> bool:
    """Return True if a region covers no pixel."""
    if region.code:
        return int(coco_mask.area([{"size": [image.height, image.width], "counts": region.code}])[0]) == 0
    for polygon in region.polygons:
        # Lists are faster than arrays here: most polygons have few points.
        numbers = polygon.tolist()
        x, y = numbers[0::2], numbers[1::2]
        left, right, top, bottom = min(x), max(x), min(y), max(y)
        if left < 0 or top < 0 or right > image.width or bottom > image.height:
            continue
        # Shoelace formula.
        area = abs(sum(map(mul, x, y[1:] + y[:1])) - sum(map(mul, x[1:] + x[:1], y))) / 2
        if area >= SURE_AREA and area >= SURE_WIDTH * max(right - left, bottom - top):
            return False
    codes = coco_mask.frPyObjects([p.tolist() for p in region.polygons], image.height, image.width)
    return not any(coco_mask.area(codes))


def box_around_region(region: Region, image: ImageEntry) -> Sequence[float] | None:
    """Return the ``(x, y, w, h)`` box around a region, or None if it is empty."""
    if region.polygons:
        points = np.concatenate(region.polygons).reshape(-1, 2)
        low, high = points.min(axis=0), points.max(axis=0)
        box = [*low.tolist(), *(high - low).tolist()]
    elif region.code:
        box = coco_mask.toBbox([{"size": [image.height, image.width], "counts": region.code}])[0].tolist()
    else:
        return None
    return box if box[2] > 0 and box[3] > 0 else None


def _check_code(code: Mapping[str, object], height: int, width: int) -> bytes:
    """Check a run-length code and return its counts in compressed form.

    The check is necessary for safety: COCO's C++ code reads past the end of a code that does not match its size.

    Raises:
        ValueError: if the code is broken or has a size other than ``height`` and ``width``.
    """
    size, counts = code.get("size"), code.get("counts")
    if not isinstance(size, list) or size != [height, width]:
        raise ValueError(f"its size is {shorten(size)}, the size of the image {[height, width]}")
    if isinstance(counts, list):
        if not all(is_int(run) for run in counts):
            raise ValueError("counts are not integers")
        runs = counts
    elif isinstance(counts, str | bytes):
        runs = decode_runs(counts).tolist()
    else:
        raise ValueError("it has no counts")
    if any(run < 0 for run in runs) or sum(runs) != height * width:
        raise ValueError(f"the counts add up to {sum(runs)}, the image has {height * width} pixels")
    if isinstance(counts, list):
        (compressed,) = coco_mask.frPyObjects([{"size": [height, width], "counts": runs}], height, width)
        counts = compressed["counts"]
    return counts.encode() if isinstance(counts, str) else bytes(counts)
