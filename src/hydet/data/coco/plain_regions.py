"""Polygons without faults, found for all annotations at once: single checks would take most of the time of loading."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from hydet.data.coco.ids import IdTable
from hydet.data.coco.json_file import ImageEntry
from hydet.data.coco.regions import (
    FAR_OUTSIDE,
    MAX_OUTLINE,
    MIN_POLYGON_NUMBERS,
    SURE_AREA,
    SURE_WIDTH,
    Region,
)

__all__ = ["find_plain_regions"]


class _Candidates(NamedTuple):
    """Lists of polygons with enough numbers.

    Attributes:
        positions: position of the entry of each polygon.
        sides: (height, width) of the image of each polygon.
        polygons: the lists of numbers.
    """

    positions: list[int]
    sides: list[tuple[int, int]]
    polygons: list[list[float]]


def find_plain_regions(
    entries: Sequence[object], images: Sequence[ImageEntry], image_ids: IdTable
) -> Mapping[int, Region]:
    """Return the regions of the annotations whose ``segmentation`` is a list of polygons without any fault.

    These have only finite numbers near the image, and one polygon inside it that is large enough to cover a pixel for
    sure. All others need :func:`hydet.data.coco.regions.read_region`, which gives the same result for these.

    Args:
        entries: unchecked entries of ``annotations``.
        images: images that can be used.
        image_ids: integers of the image ids.

    Returns:
        The regions by position of the entry. Their polygons are parts of one array.
    """
    candidates = _find_candidates(entries, images, image_ids)
    if not candidates.polygons or not _are_numbers(chain.from_iterable(candidates.polygons)):
        return {}
    lengths = np.array([len(polygon) for polygon in candidates.polygons])
    try:
        values = np.fromiter(chain.from_iterable(candidates.polygons), dtype=np.float64, count=lengths.sum())
    except OverflowError:  # an integer above the largest float
        return {}
    ends = np.cumsum(lengths)
    fits, is_sure = _check(values, ends - lengths, lengths, np.array(candidates.sides))
    bounds = ends.tolist()
    polygons_of: dict[int, list[np.ndarray]] = {}
    sure: set[int] = set()
    broken: set[int] = set()
    for position, start, end, fit, is_visible in zip(
        candidates.positions, [0, *bounds], bounds, fits.tolist(), is_sure.tolist()
    ):
        polygons_of.setdefault(position, []).append(values[start:end])
        if not fit:
            broken.add(position)
        elif is_visible:
            sure.add(position)
    return {position: Region(polygons_of[position]) for position in sure - broken}


def _find_candidates(
    entries: Sequence[object], images: Sequence[ImageEntry], image_ids: IdTable
) -> _Candidates:
    size_of = {image.image_id: (image.height, image.width) for image in images}
    candidates = _Candidates([], [], [])
    for position, entry in enumerate(entries):
        if type(entry) is not dict:
            continue
        polygons = entry.get("segmentation")
        if type(polygons) is not list or not polygons:
            continue
        image_id = image_ids.find(entry.get("image_id"))
        size = None if image_id is None else size_of.get(image_id)
        if size is None or not all(
            type(polygon) is list and len(polygon) >= MIN_POLYGON_NUMBERS and len(polygon) % 2 == 0
            for polygon in polygons
        ):
            continue
        for polygon in polygons:
            candidates.positions.append(position)
            candidates.sides.append(size)
            candidates.polygons.append(polygon)
    return candidates


def _are_numbers(values: Iterable[object]) -> bool:
    return {*map(type, values)} <= {int, float}  # exact types, because bool is a subclass of int


def _check(
    values: np.ndarray, starts: np.ndarray, lengths: np.ndarray, sides: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Check P polygons.

    Args:
        values: ``(numbers,)`` float64, x and y of all points alternating.
        starts: ``(P,)`` start of each polygon.
        lengths: ``(P,)`` number of numbers of each polygon.
        sides: ``(P, 2)`` (height, width) of the images.

    Returns:
        ``(P,)`` bool: True for polygons of finite numbers near the image that are not too long to rasterize, and for
        those of them that lie inside the image and cover a pixel for sure.
    """
    x, y = values[0::2], values[1::2]
    starts = starts // 2
    height, width = sides[:, 0], sides[:, 1]
    # Products of numbers near the largest float overflow, and comparisons with the infinities and NaN are False.
    with np.errstate(all="ignore"):
        left, right, top, bottom = (
            extreme.reduceat(axis, starts) for axis in (x, y) for extreme in (np.minimum, np.maximum)
        )
        low, high = np.minimum(left, top), np.maximum(right, bottom)
        limit = FAR_OUTSIDE * np.maximum(height, width)
        fits = (low >= -limit) & (high <= limit) & (lengths * (high - low) <= MAX_OUTLINE)
        successor = np.arange(1, len(x) + 1)
        successor[starts + lengths // 2 - 1] = starts  # a polygon is closed
        # Shoelace formula.
        area = np.abs(np.add.reduceat(x * y[successor] - x[successor] * y, starts)) / 2
        is_inside = (left >= 0) & (top >= 0) & (right <= width) & (bottom <= height)
        is_large = (area >= SURE_AREA) & (area >= SURE_WIDTH * np.maximum(right - left, bottom - top))
    return fits, fits & is_inside & is_large
