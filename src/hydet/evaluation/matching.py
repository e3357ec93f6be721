"""COCO's matching of detections to ground truth, in all images and classes at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

__all__ = ["AREA_RANGES", "IOU_THRESHOLDS", "ImageOverlaps", "Matching", "match", "strongest"]

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
AREA_RANGES = ((0.0, 1e10), (0.0, 32.0**2), (32.0**2, 96.0**2), (96.0**2, 1e10))  # all, small, medium, large
ELEMENTS_AT_ONCE = 1 << 22


@dataclasses.dataclass
class ImageOverlaps:
    """The D detections and G objects of one image, and which of them overlap.

    Args:
        classes: ``(D,)`` of the detections.
        scores: ``(D,)``.
        areas: ``(D,)`` in square pixels.
        gt_classes: ``(G,)``.
        gt_areas: ``(G,)``.
        gt_crowd: ``(G,)`` bool: matching it is neither right nor wrong, and any number of detections may.
        overlaps: ``(D, G)`` IoU, for crowds the fraction of the detection inside; only pairs of the same class, of
            at least the lowest threshold, are kept.
        excused: ``(D,)`` bool: detections that are not wrong if nothing matches them; by default none.
    """

    classes: np.ndarray
    scores: np.ndarray
    areas: np.ndarray
    gt_classes: np.ndarray
    gt_areas: np.ndarray
    gt_crowd: np.ndarray
    overlaps: dataclasses.InitVar[np.ndarray]
    excused: np.ndarray | None = None

    def __post_init__(self, overlaps: np.ndarray) -> None:
        close = (overlaps >= IOU_THRESHOLDS[0]) & (self.classes[:, None] == self.gt_classes)
        self.rows, self.columns = close.nonzero()
        self.ious = np.asarray(overlaps[self.rows, self.columns], dtype=np.float64)
        if self.excused is None:
            self.excused = np.zeros(len(self.classes), dtype=bool)


@dataclasses.dataclass
class Matching:
    """What was matched: D detections and G objects of all images, for A ranges of area and T thresholds of IoU.

    Detections are ordered by class, then by descending score, then as their images came. Only C of them, the
    candidates, overlap anything.
    """

    classes: np.ndarray  # (D,)
    ranks: np.ndarray  # (D,) place among the detections of the same image and class, from 0
    unpunished: np.ndarray  # (A, D) bool: not wrong if unmatched, being excused or out of the range of areas
    candidates: np.ndarray  # (D,) place in the arrays below, -1 for those that overlap nothing
    matched: np.ndarray  # (A, T, C) bool
    to_ignored: np.ndarray  # (A, T, C) bool: matched to what is ignored
    gt_classes: np.ndarray  # (G,)
    gt_ignored: np.ndarray  # (A, G) bool: crowds, and what is out of the range of areas


def strongest(classes: np.ndarray, scores: np.ndarray, limit: int) -> np.ndarray:
    """Indices, ascending, of the ``limit`` detections of highest score in each class; the first of equal ones."""
    order = np.lexsort((-scores, classes))
    return np.sort(order[_rank_in_group(classes[order]) < limit])


def match(
    images: Sequence[ImageOverlaps],
    *,
    thresholds: np.ndarray = IOU_THRESHOLDS,
    area_ranges: Sequence[tuple[float, float]] = AREA_RANGES,
) -> Matching:
    """Match greedily as COCO does.

    In each image and class, detections choose by descending score. Each takes the object of highest overlap that is
    still free and reaches the threshold; only if there is none, one that is ignored. Of equal overlaps the later object
    is taken. A range of areas is ignored outside its bounds, which belong to it.

    Args:
        images: what overlaps in each image.
        thresholds: ``(T,)`` ascending, from 0.5 on.
        area_ranges: A pairs in square pixels.
    """
    bounds = np.asarray(area_ranges, dtype=np.float64)[:, :, None]  # (A, 2, 1)
    image_of = np.repeat(np.arange(len(images)), [len(image.classes) for image in images])
    classes, scores, areas, excused = (
        _joined([getattr(image, name) for image in images])
        for name in ("classes", "scores", "areas", "excused")
    )
    gt_classes, gt_areas, gt_crowd = (
        _joined([getattr(image, name) for image in images]) for name in ("gt_classes", "gt_areas", "gt_crowd")
    )
    crowd = gt_crowd.astype(bool)
    order = np.lexsort((-scores, classes))
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    groups = classes[order].astype(np.int64) * max(1, len(images)) + image_of[order]

    first = np.cumsum([0, *[len(image.classes) for image in images]])
    gt_first = np.cumsum([0, *[len(image.gt_classes) for image in images]])
    rows = place[_joined([image.rows + start for image, start in zip(images, first)]).astype(np.int64)]
    columns = _joined([image.columns + start for image, start in zip(images, gt_first)]).astype(np.int64)
    ious = _joined([image.ious for image in images])
    gt_ignored = crowd | (gt_areas < bounds[:, 0]) | (gt_areas > bounds[:, 1])  # (A, G)
    by_overlap = np.lexsort((columns, ious, rows))
    with_overlap, counts = np.unique(rows, return_counts=True)
    candidates = np.full(len(order), -1)
    candidates[with_overlap] = np.arange(len(with_overlap))
    matched, to_ignored = _choose(
        groups[with_overlap], counts, columns[by_overlap], ious[by_overlap], crowd, gt_ignored, thresholds
    )
    outside = (areas[order] < bounds[:, 0]) | (areas[order] > bounds[:, 1])
    return Matching(
        classes=classes[order],
        ranks=_rank_in_group(groups),
        unpunished=outside | excused[order].astype(bool),
        candidates=candidates,
        matched=matched,
        to_ignored=to_ignored,
        gt_classes=gt_classes,
        gt_ignored=gt_ignored,
    )


def _choose(
    groups: np.ndarray,
    counts: np.ndarray,
    objects: np.ndarray,
    ious: np.ndarray,
    crowd: np.ndarray,
    gt_ignored: np.ndarray,
    thresholds: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Let the first candidates of all groups choose together, then the second ones, and so on.

    Args:
        groups: ``(C,)`` image and class of each candidate, in the order of choosing.
        counts: ``(C,)`` objects that it overlaps.
        objects: these objects, candidate after candidate, each in ascending order of overlap.
        ious: likewise.
        crowd: ``(G,)``.
        gt_ignored: ``(A, G)``.
        thresholds: ``(T,)``.

    Returns:
        ``(A, T, C)`` whether something was matched, and whether that is ignored.
    """
    num_ranges, num_thresholds = len(gt_ignored), len(thresholds)
    matched = np.zeros((num_ranges, num_thresholds, len(groups)), dtype=bool)
    to_ignored = np.zeros_like(matched)
    taken = np.zeros((num_ranges, num_thresholds, len(crowd)), dtype=bool)
    start = np.cumsum(counts) - counts
    rounds = _rank_in_group(groups)
    ranges, levels = np.arange(num_ranges)[:, None, None], np.arange(num_thresholds)[:, None]
    for rows in _parts(rounds, counts, ELEMENTS_AT_ONCE // (num_ranges * num_thresholds)):
        width = int(counts[rows].max())
        slot = np.arange(width, dtype=np.int32)
        there = slot < counts[rows, None]
        index = np.where(there, start[rows, None] + slot, 0)  # (c, width)
        which = objects[index]
        ignored = gt_ignored[:, None, which]  # (A, 1, c, width)
        good = there & (ious[index] >= thresholds[:, None, None])  # (T, c, width)
        good = good & (~taken[:, :, which] | crowd[which])  # (A, T, c, width)
        # the later the slot the higher the overlap; all that is not ignored comes before what is
        value = np.where(good, slot + 1 + width * ~ignored, 0)
        best = value.argmax(axis=3)  # (A, T, c)
        hit = np.take_along_axis(value, best[..., None], axis=3)[..., 0] > 0
        chosen = which[np.arange(len(rows)), best]
        matched[:, :, rows] = hit
        to_ignored[:, :, rows] = hit & gt_ignored[ranges, chosen]
        taken[ranges, levels, chosen] |= hit
    return matched, to_ignored


def _parts(rounds: np.ndarray, counts: np.ndarray, limit: int) -> list[np.ndarray]:
    """Candidates of the same round, those of similar counts together, in parts of about ``limit`` slots."""
    parts = []
    order = np.lexsort((counts, rounds))
    for one in np.split(order, np.flatnonzero(np.diff(rounds[order])) + 1):
        if len(one):
            size = max(1, limit // int(counts[one].max()))
            parts += [one[i : i + size] for i in range(0, len(one), size)]
    return parts


def _rank_in_group(groups: np.ndarray) -> np.ndarray:
    """For each element how many before it have the same value."""
    order = np.argsort(groups, kind="stable")
    in_order = groups[order]
    is_first = np.ones(len(groups), dtype=bool)
    is_first[1:] = in_order[1:] != in_order[:-1]
    position = np.arange(len(groups))
    ranks = np.empty(len(groups), dtype=np.int64)
    ranks[order] = position - np.maximum.accumulate(np.where(is_first, position, 0))
    return ranks


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0)
