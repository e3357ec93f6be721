"""Average precision and recall from matched detections, as COCO defines them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from .matching import IOU_THRESHOLDS, Matching

__all__ = [
    "PrecisionRecall",
    "accumulate",
    "average_recall",
    "class_ap",
    "mean_of_measured",
    "summarize",
]

RECALL_POINTS = np.linspace(0.0, 1.0, 101)

# T IoU thresholds, K classes, A area ranges, M limits on the number of detections.


@dataclasses.dataclass
class PrecisionRecall:
    """Precision and recall, in the layout of COCO's tools; -1 where a class has no object in an area range.

    Attributes:
        precision: ``(T, 101, K, A, M)`` precision at 101 points of recall.
        recall: ``(T, K, A, M)`` highest recall.
        iou_thresholds: ``(T,)``.
        max_detections: M limits on the number of detections per image.
    """

    precision: np.ndarray
    recall: np.ndarray
    iou_thresholds: np.ndarray
    max_detections: list[int]


def accumulate(matching: Matching, num_classes: int, max_detections: int) -> PrecisionRecall:
    """Compute precision at 101 points of recall, and the highest recall.

    The precision at a recall is the highest precision at this or a higher recall.

    Args:
        matching: matched detections of all images.
        num_classes: K.
        max_detections: limit on the detections in ``matching``, for the result.
    """
    num_ranges, num_thresholds = matching.matched.shape[:2]
    precision = np.full((num_thresholds, len(RECALL_POINTS), num_classes, num_ranges, 1), -1.0)
    recall = np.full((num_thresholds, num_classes, num_ranges, 1), -1.0)
    bounds = np.searchsorted(matching.classes, np.arange(num_classes + 1))
    for k in range(num_classes):
        rows = slice(*bounds[k : k + 2].tolist())
        num_objects = (~matching.gt_ignored[:, matching.gt_classes == k]).sum(axis=1)
        for a in np.flatnonzero(num_objects).tolist():
            precision[:, :, k, a, 0], recall[:, k, a, 0] = _curve(matching, rows, a, int(num_objects[a]))
    return PrecisionRecall(precision, recall, IOU_THRESHOLDS, [max_detections])


def average_recall(matching: Matching, limit: int) -> np.ndarray:
    """Compute the recall of the ``limit`` best detections per image and class, averaged over IoU thresholds.

    Returns:
        ``(A,)``, one value per area range; NaN without objects.
    """
    candidates = matching.candidates[(matching.ranks < limit) & (matching.candidates >= 0)]
    num_matched = (matching.matched & ~matching.to_ignored)[:, :, candidates].sum(axis=2)
    num_objects = (~matching.gt_ignored).sum(axis=1)
    means = num_matched.mean(axis=1)
    recall = np.full(len(means), math.nan)
    np.divide(means, num_objects, out=recall, where=num_objects > 0)
    return recall


def _curve(matching: Matching, rows: slice, a: int, num_objects: int) -> tuple[np.ndarray, np.ndarray]:
    """Return ``(T, 101)`` precision and ``(T,)`` recall of one class and area range."""
    candidates = matching.candidates[rows]
    has_overlap = candidates >= 0
    matched = np.zeros((matching.matched.shape[1], len(candidates)), dtype=bool)
    ignored = np.zeros_like(matched)
    matched[:, has_overlap] = matching.matched[a][:, candidates[has_overlap]]
    ignored[:, has_overlap] = matching.to_ignored[a][:, candidates[has_overlap]]
    ignored |= ~matched & matching.ignored_if_unmatched[a, rows]
    true_positives = np.cumsum(matched & ~ignored, axis=1, dtype=np.float64)
    false_positives = np.cumsum(~matched & ~ignored, axis=1, dtype=np.float64)
    curve = np.zeros((len(true_positives), len(RECALL_POINTS)))
    if not len(candidates):
        return curve, np.zeros(len(true_positives))
    recall = true_positives / num_objects
    # The spacing avoids 0 / 0 in the first rows. It is that of COCO, so that values agree to the last bit.
    precision = true_positives / (true_positives + false_positives + np.spacing(1))
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    for t, reached in enumerate(recall):
        index = np.searchsorted(reached, RECALL_POINTS)
        within = index < len(candidates)
        curve[t, within] = precision[t, index[within]]
    return curve, recall[:, -1]


def mean_of_measured(values: np.ndarray) -> float:
    """Return the mean of the values except -1, which marks classes and sizes without objects; NaN if none are left."""
    values = values[values > -1]
    return float(values.mean()) if values.size else math.nan


def summarize(results: PrecisionRecall, *, with_counts: bool) -> dict[str, float]:
    """Average precision and recall into COCO's metrics: AP, AP50, AP75, AP and AR by object size.

    Args:
        results: precision and recall; metrics use the last of ``max_detections``.
        with_counts: True adds AR1 and AR10 if ``max_detections`` has them.
    """
    precision, recall, iou = results.precision, results.recall, results.iou_thresholds
    sizes = {"": 0, "s": 1, "m": 2, "l": 3} if precision.shape[3] == 4 else {"": 0, "m": 1, "l": 2}
    at = {"50": np.isclose(iou, 0.5), "75": np.isclose(iou, 0.75)}
    metrics = {"AP": mean_of_measured(precision[..., 0, -1])}
    metrics |= {f"AP{name}": mean_of_measured(precision[rows][..., 0, -1]) for name, rows in at.items()}
    metrics |= {f"AP{size}": mean_of_measured(precision[..., i, -1]) for size, i in sizes.items() if size}
    metrics |= {f"AR{size}": mean_of_measured(recall[..., i, -1]) for size, i in sizes.items()}
    if with_counts:
        limits = results.max_detections
        for n in (1, 10):
            if n in limits:
                metrics[f"AR{n}"] = mean_of_measured(recall[..., 0, limits.index(n)])
    return metrics


def class_ap(precision: np.ndarray) -> list[float]:
    """Return the AP of each class from ``(T, 101, K, A, M)`` precision."""
    return [mean_of_measured(precision[:, :, k, 0, -1]) for k in range(precision.shape[2])]
