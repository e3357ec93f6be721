"""COCO's average precision for rotated boxes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .ap_tables import class_table, summary_table
from .average_precision import accumulate, class_ap, summarize
from .coco_results import instances_of
from .ground_truth import image_name
from .matching import ImageOverlaps, match, strongest
from .per_image import PerImageEvaluator
from .truth_objects import TruthObjects, box_areas, box_overlaps, iou_thresholds, objects_by_image

__all__ = ["RotatedCocoEvaluator"]


class RotatedCocoEvaluator(PerImageEvaluator):
    """Average precision as COCO defines it, with the IoU of rotated boxes: averaged over IoU 0.50 to 0.95.

    Metrics are ``rotated/AP``, ``/AP50``, ``/AP75``, ``/APs``, ``/APm``, ``/APl`` (boxes of w * h below 32², below
    96², and above) and ``/AR`` with its sizes, between 0 and 1; NaN without any object to measure on. With all angles 0
    they are ``CocoEvaluator``'s of those boxes. Only images that were seen count.

    Args:
        dataset: has ``metadata`` and ``to_coco()``, ground truth in COCO's format with ``rotated_bbox`` as (cx, cy, w,
            h, degrees counter-clockwise); an annotation without one counts as ``bbox`` at 0 degrees.
        max_detections: the best so many an image and class count.
        per_class_metrics: also give ``rotated/AP/<class>``.

    Raises:
        ValueError: if ``max_detections`` is not positive.
    """

    def __init__(self, dataset: Any, *, max_detections: int = 100, per_class_metrics: bool = False) -> None:
        if max_detections < 1:
            raise ValueError(f"max_detections must be at least 1, got {max_detections}")
        self.dataset = dataset
        self.metadata = dataset.metadata
        self.max_detections = max_detections
        self.per_class_metrics = per_class_metrics
        self._truth: dict[Any, TruthObjects] = {}
        super().__init__()

    def _collect(
        self, entry: Mapping[str, Any], output: Mapping[str, Any]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        found = instances_of(entry, output, len(self.metadata.thing_ids))
        boxes = found.pred_boxes.tensor.detach().float().cpu().numpy()
        if boxes.shape[1] != 5:
            raise ValueError(
                f"{image_name(entry)}: pred_boxes have {boxes.shape[1]} numbers each, expected rotated boxes of 5"
            )
        classes = found.pred_classes.cpu().numpy()
        scores = found.scores.detach().double().cpu().numpy()
        kept = strongest(classes, scores, self.max_detections)
        return boxes[kept], scores[kept], classes[kept]

    def _measure(self, results: dict[Any, tuple[np.ndarray, np.ndarray, np.ndarray]]) -> dict[str, float]:
        if not self._truth:
            self._truth = objects_by_image(self.dataset.to_coco(), self.metadata.thing_ids, rotated=True)
        self._check_images(results, self._truth)
        overlaps, counts = [], np.zeros(len(self.metadata.thing_ids), dtype=np.int64)
        for image, (boxes, scores, classes) in results.items():
            truth = self._truth[image]
            overlaps.append(
                ImageOverlaps(
                    classes=classes,
                    scores=scores,
                    areas=box_areas(boxes),
                    gt_classes=truth.classes,
                    gt_areas=truth.areas,
                    gt_crowd=truth.crowd,
                    overlaps=box_overlaps(boxes, truth),
                )
            )
            np.add.at(counts, truth.classes[~truth.crowd], 1)
        matching = match(overlaps, thresholds=iou_thresholds(rotated=True))
        evaluated = accumulate(matching, len(counts), self.max_detections)
        metrics = {
            f"rotated/{name}": value for name, value in summarize(evaluated, with_counts=False).items()
        }
        of_classes = class_ap(evaluated["precision"])
        if self.per_class_metrics:
            pairs = zip(self.metadata.thing_classes, of_classes, strict=True)
            metrics |= {f"rotated/AP/{label}": value for label, value in pairs}
        self._tables = [
            summary_table(metrics, ["rotated"], len(results)),
            class_table(self.metadata.thing_classes, {"rotated": of_classes}, counts.tolist()),
        ]
        return metrics
