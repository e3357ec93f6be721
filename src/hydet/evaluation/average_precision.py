"""Average precision and recall from what was matched, as COCO defines them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from .matching import IOU_THRESHOLDS, Matching

__all__ = ["accumulate", "average_recall", "class_ap", "mean_of_measured", "summarize"]

RECALL_POINTS = np.linspace(0.0, 1.0, 101)


def accumulate(matching: Matching, num_classes: int, max_detections: int) -> dict[str, np.ndarray]:
    """Precision at 101 points of recall, and the recall that is reached.

    Precision at a recall is the highest one at this recall or a higher one. Where a class has no object in a range of
    areas, everything is -1.

    Args:
        matching: of all images.
        num_classes: K.
        max_detections: that were kept; passed on.

    Returns:
        As COCO's tools have it, ``precision`` (T, 101, K, A, 1), ``recall`` (T, K, A, 1), ``iou`` (T,) and
        ``max_detections`` (1,).
    """
    num_ranges, num_thresholds = matching.matched.shape[:2]
    precision = np.full((num_thresholds, len(RECALL_POINTS), num_classes, num_ranges, 1), -1.0)
    recall = np.full((num_thresholds, num_classes, num_ranges, 1), -1.0)
    bounds = np.searchsorted(matching.classes, np.arange(num_classes + 1))
    for k in range(num_classes):
        own = slice(*bounds[k : k + 2].tolist())
        objects = (~matching.gt_ignored[:, matching.gt_classes == k]).sum(axis=1)
        for a in np.flatnonzero(objects).tolist():
            precision[:, :, k, a, 0], recall[:, k, a, 0] = _curve(matching, own, a, int(objects[a]))
    return {
        "precision": precision,
        "recall": recall,
        "iou": IOU_THRESHOLDS,
        "max_detections": np.array([max_detections]),
    }


def average_recall(matching: Matching, limit: int) -> np.ndarray:
    """``(A,)`` for each range of areas the fraction of objects found by the best ``limit`` detections of each image
    and class, averaged over thresholds; NaN without objects."""
    kept = matching.candidates[(matching.ranks < limit) & (matching.candidates >= 0)]
    found = (matching.matched & ~matching.to_ignored)[:, :, kept].sum(axis=2)
    objects = (~matching.gt_ignored).sum(axis=1)
    means = found.mean(axis=1)
    return np.divide(means, objects, out=np.full(len(means), math.nan), where=objects > 0)


def _curve(matching: Matching, own: slice, a: int, objects: int) -> tuple[np.ndarray, np.ndarray]:
    """``(T, 101)`` precision and ``(T,)`` recall of one class and range of areas."""
    candidates = matching.candidates[own]
    overlaps = candidates >= 0
    matched = np.zeros((matching.matched.shape[1], len(candidates)), dtype=bool)
    ignored = np.zeros_like(matched)
    matched[:, overlaps] = matching.matched[a][:, candidates[overlaps]]
    ignored[:, overlaps] = matching.to_ignored[a][:, candidates[overlaps]]
    ignored |= ~matched & matching.unpunished[a, own]
    right = np.cumsum(matched & ~ignored, axis=1, dtype=np.float64)
    wrong = np.cumsum(~matched & ~ignored, axis=1, dtype=np.float64)
    curve = np.zeros((len(right), len(RECALL_POINTS)))
    if not len(candidates):
        return curve, np.zeros(len(right))
    recall = right / objects
    precision = right / (right + wrong + np.spacing(1))
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    for t, reached in enumerate(recall):
        index = np.searchsorted(reached, RECALL_POINTS)
        within = index < len(candidates)
        curve[t, within] = precision[t, index[within]]
    return curve, recall[:, -1]


def mean_of_measured(values: np.ndarray) -> float:
    """The mean of all that is not -1; NaN if nothing is left."""
    values = values[values > -1]  # -1 marks what there was nothing to measure on
    return float(values.mean()) if values.size else math.nan


def summarize(evaluated: Mapping[str, np.ndarray], *, with_counts: bool) -> dict[str, float]:
    """AP and AR with their thresholds and sizes.

    Args:
        evaluated: what ``accumulate`` gives; the last of ``max_detections`` counts.
        with_counts: also AR1 and AR10, where ``max_detections`` has them.
    """
    precision, recall, iou = evaluated["precision"], evaluated["recall"], evaluated["iou"]
    sizes = {"": 0, "s": 1, "m": 2, "l": 3} if precision.shape[3] == 4 else {"": 0, "m": 1, "l": 2}
    at = {"50": np.isclose(iou, 0.5), "75": np.isclose(iou, 0.75)}
    numbers = {"AP": mean_of_measured(precision[..., 0, -1])}
    numbers |= {f"AP{name}": mean_of_measured(precision[rows][..., 0, -1]) for name, rows in at.items()}
    numbers |= {f"AP{size}": mean_of_measured(precision[..., i, -1]) for size, i in sizes.items() if size}
    numbers |= {f"AR{size}": mean_of_measured(recall[..., i, -1]) for size, i in sizes.items()}
    if with_counts:
        most = evaluated["max_detections"].tolist()
        numbers |= {f"AR{n}": mean_of_measured(recall[..., 0, most.index(n)]) for n in (1, 10) if n in most}
    return numbers


def class_ap(precision: np.ndarray) -> list[float]:
    """AP of each class."""
    return [mean_of_measured(precision[:, :, k, 0, -1]) for k in range(precision.shape[2])]
