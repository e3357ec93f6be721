"""Regions of COCO annotations: polygons and run-length codes, checked against the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from faster_coco_eval.core import mask as coco_mask

from hydet.data.annotations.rle import decode_runs
from hydet.data.coco.json_file import ImageEntry
from hydet.data.coco.json_values import are_finite, is_int, shorten
from hydet.data.coco.problems import ProblemHandler

__all__ = ["Region", "box_around_region", "read_region"]

_MIN_POLYGON_NUMBERS = 6  # three points


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
        problems: receives the problems. Broken parts are left out if the policy allows repairs.

    Raises:
        BrokenAnnotationError: if a part is broken and the policy does not allow repairs.
    """
    if not value:
        return Region()
    if isinstance(value, dict):
        try:
            return Region(code=_check_code(value, image.height, image.width))
        except ValueError as error:
            problems.repair("bad_rle", description, f"run-length code: {error}", action="left out")
            return Region()
    if not isinstance(value, list):
        reason = f"segmentation is {shorten(value)}"
        problems.repair("bad_segmentation", description, reason, action="left out")
        return Region()
    if all(isinstance(v, int | float) for v in value):
        value = [value]
    polygons = []
    for polygon in value:
        if not are_finite(polygon) or len(polygon) < _MIN_POLYGON_NUMBERS or len(polygon) % 2:
            reason = f"a polygon needs at least three points with x and y, got {shorten(polygon)}"
            problems.repair("bad_polygon", description, reason, action="left out")
            continue
        polygons.append(np.array(polygon, dtype=np.float64))
    return Region(polygons=polygons)


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
