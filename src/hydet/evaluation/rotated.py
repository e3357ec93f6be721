"""COCO's average precision of rotated boxes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from hydet.data.datasets.dataset import as_detection_dataset
from hydet.structures import ModelInput, ModelOutput

from .ap_tables import class_table, summary_table
from .average_precision import accumulate, class_ap, summarize
from .coco_results import get_instances
from .ground_truth_maps import image_name
from .ground_truth_objects import (
    GroundTruthObjects,
    box_areas,
    box_overlaps,
    iou_thresholds,
    objects_by_image,
)
from .matching import ImageOverlaps, match, top_scores_per_class
from .per_image_evaluator import PerImageEvaluator

if TYPE_CHECKING:
    from hydet.data.datasets.dataset import RecordSource

__all__ = ["RotatedCocoEvaluator"]


@dataclasses.dataclass
class _Detections:
    """The D detections of an image."""

    boxes: np.ndarray  # (D, 5)
    scores: np.ndarray  # (D,) float64
    classes: np.ndarray  # (D,)


class RotatedCocoEvaluator(PerImageEvaluator[_Detections]):
    """Average precision as COCO defines it, with the IoU of rotated boxes, averaged over IoU 0.50 to 0.95.

    Metrics are ``rotated/AP``, ``/AP50``, ``/AP75``, ``/APs``, ``/APm``, ``/APl`` (boxes with w * h below 32²,
    from 32² to 96², and above, in square pixels) and ``/AR`` with its sizes. Values lie between 0 and 1; a metric without
    objects is NaN. If all angles are 0, the values equal those of ``CocoEvaluator``. Only images that the evaluator
    received count.

    Args:
        dataset: dataset with ``metadata`` and ``to_coco()``, the ground truth in COCO's format with ``rotated_bbox`` as
            (cx, cy, w, h, degrees counter-clockwise); an annotation without one counts as ``bbox`` at 0 degrees.
        max_detections: detections per image and class to evaluate, those with the highest scores.
        per_class_metrics: True adds ``rotated/AP/<class>``.

    Raises:
        ValueError: if ``max_detections`` is not positive.
    """

    def __init__(
        self, dataset: RecordSource, *, max_detections: int = 100, per_class_metrics: bool = False
    ) -> None:
        super().__init__()
        if max_detections < 1:
            raise ValueError(f"max_detections must be at least 1, got {max_detections}")
        self.dataset = as_detection_dataset(dataset)
        self.metadata = self.dataset.metadata
        self.max_detections = max_detections
        self.per_class_metrics = per_class_metrics
        self._objects: dict[int, GroundTruthObjects] = {}  # by image id

    def _collect(self, entry: ModelInput, output: ModelOutput) -> _Detections:
        instances = get_instances(entry, output, len(self.metadata.thing_ids))
        boxes = instances.pred_boxes.tensor.detach().float().cpu().numpy()
        if boxes.shape[1] != 5:
            raise ValueError(
                f"{image_name(entry)}: pred_boxes have {boxes.shape[1]} numbers each, expected rotated boxes of 5"
            )
        classes = instances.pred_classes.cpu().numpy()
        scores = instances.scores.detach().double().cpu().numpy()
        best = top_scores_per_class(classes, scores, self.max_detections)
        return _Detections(boxes[best], scores[best], classes[best])

    def _compute(self, results: Mapping[int, _Detections]) -> dict[str, float]:
        if not self._objects:
            self._objects = objects_by_image(self.dataset.to_coco(), self.metadata.thing_ids, rotated=True)
        self._check_images(results, self._objects)
        overlaps, counts = [], np.zeros(len(self.metadata.thing_ids), dtype=np.int64)
        for image_id, detections in results.items():
            objects = self._objects[image_id]
            overlaps.append(
                ImageOverlaps(
                    classes=detections.classes,
                    scores=detections.scores,
                    areas=box_areas(detections.boxes),
                    gt_classes=objects.classes,
                    gt_areas=objects.areas,
                    gt_crowd=objects.crowd,
                    overlaps=box_overlaps(detections.boxes, objects),
                )
            )
            np.add.at(counts, objects.classes[~objects.crowd], 1)
        matching = match(overlaps, thresholds=iou_thresholds(rotated=True))
        evaluated = accumulate(matching, len(counts), self.max_detections)
        summary = summarize(evaluated, with_counts=False)
        metrics = {f"rotated/{name}": value for name, value in summary.items()}
        per_class = class_ap(evaluated.precision)
        if self.per_class_metrics:
            pairs = zip(self.metadata.thing_classes, per_class, strict=True)
            metrics |= {f"rotated/AP/{name}": value for name, value in pairs}
        self._tables = [
            summary_table(metrics, ["rotated"], len(results)),
            class_table(self.metadata.thing_classes, {"rotated": per_class}, counts.tolist()),
        ]
        return metrics
