"""Match detections to ground truth as COCO does, for all images and classes at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

__all__ = ["AREA_RANGES", "IOU_THRESHOLDS", "ImageOverlaps", "Matching", "match", "top_scores_per_class"]

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
AREA_RANGES = ((0.0, 1e10), (0.0, 32.0**2), (32.0**2, 96.0**2), (96.0**2, 1e10))  # all, small, medium, large
ELEMENTS_AT_ONCE = 1 << 22  # size of the largest temporary array of `match`


@dataclasses.dataclass
class ImageOverlaps:
    """The D detections and G objects of one image, and the pairs that overlap.

    Args:
        classes: ``(D,)`` classes of the detections.
        scores: ``(D,)`` scores of the detections.
        areas: ``(D,)`` areas of the detections in square pixels.
        gt_classes: ``(G,)`` classes of the objects.
        gt_areas: ``(G,)`` areas of the objects in square pixels.
        gt_crowd: ``(G,)`` bool. Any number of detections can match a crowd; they are neither true nor false positives.
        overlaps: ``(D, G)`` IoU; for crowds the fraction of the detection inside the crowd. Only pairs of the same
            class that reach the lowest threshold are stored.
        ignore_if_unmatched: ``(D,)`` bool, True for detections that are no false positives if they match nothing; all
            False by default.
    """

    classes: np.ndarray
    scores: np.ndarray
    areas: np.ndarray
    gt_classes: np.ndarray
    gt_areas: np.ndarray
    gt_crowd: np.ndarray
    overlaps: dataclasses.InitVar[np.ndarray]
    ignore_if_unmatched: np.ndarray | None = None

    def __post_init__(self, overlaps: np.ndarray) -> None:
        close = (overlaps >= IOU_THRESHOLDS[0]) & (self.classes[:, None] == self.gt_classes)
        self.rows, self.columns = close.nonzero()
        self.ious = np.asarray(overlaps[self.rows, self.columns], dtype=np.float64)
        if self.ignore_if_unmatched is None:
            self.ignore_if_unmatched = np.zeros(len(self.classes), dtype=bool)


@dataclasses.dataclass
class Matching:
    """Matches of the D detections and G objects of all images, for A area ranges and T IoU thresholds.

    Detections are sorted by class, then by descending score, then by image. Only C of them, the candidates, overlap an
    object.
    """

    classes: np.ndarray  # (D,)
    ranks: np.ndarray  # (D,) rank among the detections of the same image and class, from 0
    ignored_if_unmatched: (
        np.ndarray
    )  # (A, D) bool: no false positive if unmatched, also outside the area range
    candidates: np.ndarray  # (D,) index in the arrays below, -1 for detections that overlap nothing
    matched: np.ndarray  # (A, T, C) bool
    to_ignored: np.ndarray  # (A, T, C) bool: matched to an ignored object
    gt_classes: np.ndarray  # (G,)
    gt_ignored: np.ndarray  # (A, G) bool: crowds, and objects outside the area range


def top_scores_per_class(classes: np.ndarray, scores: np.ndarray, limit: int) -> np.ndarray:
    """Select the highest scores of each class.

    Args:
        classes: ``(D,)``.
        scores: ``(D,)``.
        limit: largest number of scores per class; the first of equal scores have priority.

    Returns:
        Selected indices in ascending order.
    """
    order = np.lexsort((-scores, classes))
    return np.sort(order[_rank_in_group(classes[order]) < limit])


def match(
    images: Sequence[ImageOverlaps],
    *,
    thresholds: np.ndarray = IOU_THRESHOLDS,
    area_ranges: Sequence[tuple[float, float]] = AREA_RANGES,
) -> Matching:
    """Match detections to objects greedily, as COCO does.

    In each image and class, detections are matched in descending order of score. Each is matched to the unmatched object
    with the highest overlap, if this reaches the threshold; otherwise, in the same way, to an ignored object. The later
    of two objects with equal overlap has priority. Objects outside an area range (inclusive bounds) are ignored.

    Args:
        images: detections and objects of each image.
        thresholds: ``(T,)`` ascending IoU thresholds, at least 0.5.
        area_ranges: A pairs (smallest, largest) in square pixels.
    """
    bounds = np.asarray(area_ranges, dtype=np.float64)[:, :, None]  # (A, 2, 1)
    image_of = np.repeat(np.arange(len(images)), [len(image.classes) for image in images])
    classes, scores, areas, ignore_if_unmatched = (
        _concatenate([getattr(image, name) for image in images])
        for name in ("classes", "scores", "areas", "ignore_if_unmatched")
    )
    gt_classes, gt_areas, gt_crowd = (
        _concatenate([getattr(image, name) for image in images])
        for name in ("gt_classes", "gt_areas", "gt_crowd")
    )
    crowd = gt_crowd.astype(bool)
    order = np.lexsort((-scores, classes))
    sorted_index = np.empty_like(order)
    sorted_index[order] = np.arange(len(order))
    groups = classes[order].astype(np.int64) * max(1, len(images)) + image_of[order]

    first = np.cumsum([0, *[len(image.classes) for image in images]])
    gt_first = np.cumsum([0, *[len(image.gt_classes) for image in images]])
    rows = sorted_index[
        _concatenate([image.rows + start for image, start in zip(images, first)]).astype(np.int64)
    ]
    columns = _concatenate([image.columns + start for image, start in zip(images, gt_first)]).astype(np.int64)
    ious = _concatenate([image.ious for image in images])
    gt_ignored = crowd | (gt_areas < bounds[:, 0]) | (gt_areas > bounds[:, 1])  # (A, G)
    by_overlap = np.lexsort((columns, ious, rows))
    with_overlap, counts = np.unique(rows, return_counts=True)
    candidates = np.full(len(order), -1)
    candidates[with_overlap] = np.arange(len(with_overlap))
    matched, to_ignored = _match_candidates(
        groups[with_overlap], counts, columns[by_overlap], ious[by_overlap], crowd, gt_ignored, thresholds
    )
    outside = (areas[order] < bounds[:, 0]) | (areas[order] > bounds[:, 1])
    return Matching(
        classes=classes[order],
        ranks=_rank_in_group(groups),
        ignored_if_unmatched=outside | ignore_if_unmatched[order].astype(bool),
        candidates=candidates,
        matched=matched,
        to_ignored=to_ignored,
        gt_classes=gt_classes,
        gt_ignored=gt_ignored,
    )


def _match_candidates(
    groups: np.ndarray,
    counts: np.ndarray,
    objects: np.ndarray,
    ious: np.ndarray,
    crowd: np.ndarray,
    gt_ignored: np.ndarray,
    thresholds: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Match the first candidates of all groups in one step, then the second candidates, and so on.

    Candidates of different groups do not compete, so one round handles all groups at once.

    Args:
        groups: ``(C,)`` image and class of each candidate, in the order of matching.
        counts: ``(C,)`` number of objects that each candidate overlaps.
        objects: indices of these objects, candidate by candidate, by ascending overlap.
        ious: their overlaps, in the same order.
        crowd: ``(G,)`` bool.
        gt_ignored: ``(A, G)`` bool.
        thresholds: ``(T,)``.

    Returns:
        Two ``(A, T, C)`` bool arrays: True for a match, and True for a match with an ignored object.
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
        is_used = slot < counts[rows, None]
        index = np.where(is_used, start[rows, None] + slot, 0)  # (c, width)
        gt_index = objects[index]
        ignored = gt_ignored[:, None, gt_index]  # (A, 1, c, width)
        can_match = is_used & (ious[index] >= thresholds[:, None, None])  # (T, c, width)
        can_match = can_match & (~taken[:, :, gt_index] | crowd[gt_index])  # (A, T, c, width)
        # A later slot has a higher overlap. Adding the width ranks every other object above every ignored one.
        value = np.where(can_match, slot + 1 + width * ~ignored, 0)
        best = value.argmax(axis=3)  # (A, T, c)
        hit = np.take_along_axis(value, best[..., None], axis=3)[..., 0] > 0
        chosen = gt_index[np.arange(len(rows)), best]
        matched[:, :, rows] = hit
        to_ignored[:, :, rows] = hit & gt_ignored[ranges, chosen]
        taken[ranges, levels, chosen] |= hit
    return matched, to_ignored


def _parts(rounds: np.ndarray, counts: np.ndarray, limit: int) -> list[np.ndarray]:
    """Split the candidates of each round into parts of about ``limit`` slots, to bound memory.

    Candidates with similar counts share a part, since the slots of a part are padded to its largest count.
    """
    parts = []
    order = np.lexsort((counts, rounds))
    for candidates in np.split(order, np.flatnonzero(np.diff(rounds[order])) + 1):
        if len(candidates):
            size = max(1, limit // int(counts[candidates].max()))
            parts += [candidates[i : i + size] for i in range(0, len(candidates), size)]
    return parts


def _rank_in_group(groups: np.ndarray) -> np.ndarray:
    """Return for each element the number of earlier elements with the same value."""
    order = np.argsort(groups, kind="stable")
    in_order = groups[order]
    is_first = np.ones(len(groups), dtype=bool)
    is_first[1:] = in_order[1:] != in_order[:-1]
    position = np.arange(len(groups))
    ranks = np.empty(len(groups), dtype=np.int64)
    ranks[order] = position - np.maximum.accumulate(np.where(is_first, position, 0))
    return ranks


def _concatenate(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0)
