"""LVIS's average precision of boxes and masks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from hydet.data.datasets.coco_format import CocoImage, CocoJson, FederatedKey
from hydet.data.datasets.dataset import as_detection_dataset
from hydet.structures import ModelInput, ModelOutput

from .ap_tables import COLUMNS, summary_table
from .average_precision import accumulate, mean_of_measured, summarize
from .coco_results import TASKS, RunLengths, check_fields, get_instances, mask_run_lengths
from .ground_truth_objects import (
    GroundTruthObjects,
    box_areas,
    box_overlaps,
    objects_by_image,
)
from .mask_overlaps import (
    DILATION_RATIO,
    check_dilation_ratio,
    limit_by_boundaries,
    mask_areas,
    mask_overlaps,
    to_run_lengths,
)
from .matching import ImageOverlaps, match
from .per_image_evaluator import PerImageEvaluator

if TYPE_CHECKING:
    from hydet.data.datasets.dataset import RecordSource

__all__ = ["LvisEvaluator"]

IOU_TYPES = ("bbox", "segm")
FREQUENCIES = ("r", "c", "f")  # rare, common, frequent in the training images


@dataclasses.dataclass
class _Detections:
    """The D detections of one image."""

    classes: np.ndarray  # (D,)
    scores: np.ndarray  # (D,) float64
    boxes: np.ndarray  # (D, 4) xyxy
    masks: list[RunLengths] | None  # D masks

    def __getitem__(self, keep: np.ndarray) -> _Detections:
        masks = None if self.masks is None else [self.masks[i] for i in np.flatnonzero(keep)]
        return _Detections(self.classes[keep], self.scores[keep], self.boxes[keep], masks)


class LvisEvaluator(PerImageEvaluator[_Detections]):
    """Average precision under LVIS's federated annotations, where annotators checked only some classes per image.

    In each image, detections count only if their class has objects there or was verified to be absent
    (``neg_category_ids``). For classes whose objects may not all be annotated (``not_exhaustive_category_ids``), a
    detection that matches nothing is no false positive. The rest follows COCO, except that the limit of detections
    applies to all classes of an image together.

    Metrics are ``<task>/AP``, ``/AP50``, ``/AP75``, ``/APs``, ``/APm``, ``/APl``, the means ``/APr``, ``/APc``,
    ``/APf`` over rare, common and frequent classes, and ``/AR`` with its sizes. The task is ``box``, ``mask`` or
    ``boundary``. Values lie between 0 and 1; a metric without objects is NaN. Only images that the evaluator received
    count.

    Args:
        dataset: dataset with ``metadata`` and ``to_coco()``, the ground truth in LVIS's format: COCO's format with the
            lists above for each image, and the ``frequency`` (r, c or f) of each category.
        iou_types: any of ``"bbox"`` and ``"segm"``.
        max_detections: number of best detections per image that count.
        boundary: True adds the task ``boundary``; see ``CocoEvaluator``.
        boundary_dilation_ratio: width of a boundary over the diagonal of the image.

    Raises:
        ValueError: if a type is unknown, ``max_detections`` is not positive, or ``boundary`` is True without masks.

    Source: Gupta et al. 2019 (arXiv:1908.03195), section 2.
    """

    def __init__(
        self,
        dataset: RecordSource,
        *,
        iou_types: Sequence[str] = IOU_TYPES,
        max_detections: int = 300,
        boundary: bool = False,
        boundary_dilation_ratio: float = DILATION_RATIO,
    ) -> None:
        super().__init__()
        if not iou_types or any(name not in IOU_TYPES for name in iou_types):
            raise ValueError(f"iou_types must be among {list(IOU_TYPES)}, got {list(iou_types)}")
        if max_detections < 1:
            raise ValueError(f"max_detections must be at least 1, got {max_detections}")
        if boundary and "segm" not in iou_types:
            raise ValueError(f"boundary=True needs masks ('segm'), but iou_types is {list(iou_types)}")
        self.boundary_dilation_ratio = check_dilation_ratio(boundary_dilation_ratio)
        self.tasks = [TASKS[name] for name in iou_types] + (["boundary"] if boundary else [])
        self.dataset = as_detection_dataset(dataset)
        self.metadata = self.dataset.metadata
        self.iou_types = tuple(iou_types)
        self.max_detections = max_detections
        self._ground_truth: _LvisGroundTruth | None = None

    takes_roi_masks = True

    def _collect(self, entry: ModelInput, output: ModelOutput) -> _Detections:
        instances = get_instances(entry, output, len(self.metadata.thing_ids))
        check_fields(instances, self.iou_types)
        best = instances.scores.argsort(descending=True, stable=True)[: self.max_detections]
        instances = instances[best]
        return _Detections(
            classes=instances.pred_classes.cpu().numpy(),
            scores=instances.scores.detach().double().cpu().numpy(),
            boxes=instances.pred_boxes.tensor.detach().float().cpu().numpy(),
            masks=mask_run_lengths(instances) if "segm" in self.iou_types else None,
        )

    def _compute(self, results: Mapping[int, _Detections]) -> dict[str, float]:
        if self._ground_truth is None:
            self._ground_truth = _LvisGroundTruth.from_json(self.dataset.to_coco(), self.metadata.thing_ids)
        ground_truth = self._ground_truth
        self._check_images(results, ground_truth.objects)
        counted = {
            image_id: detections[ground_truth.is_annotated(image_id, detections.classes)]
            for image_id, detections in results.items()
        }
        metrics: dict[str, float] = {}
        for task in self.tasks:
            overlaps = [
                _overlaps(detections, ground_truth, image_id, task, self.boundary_dilation_ratio)
                for image_id, detections in counted.items()
            ]
            evaluated = accumulate(match(overlaps), len(self.metadata.thing_ids), self.max_detections)
            summary = summarize(evaluated, with_counts=False)
            for letter in FREQUENCIES:
                precision = evaluated.precision[:, :, ground_truth.frequency == letter, 0]
                summary[f"AP{letter}"] = mean_of_measured(precision)
            metrics |= {f"{task}/{key}": value for key, value in summary.items()}
        columns = [*COLUMNS[:-1], *[f"AP{letter}" for letter in FREQUENCIES], COLUMNS[-1]]
        self._tables = [summary_table(metrics, self.tasks, len(results), columns)]
        return metrics


@dataclasses.dataclass
class _LvisGroundTruth:
    """The ground truth by image id, with classes 0 to K - 1."""

    objects: dict[int, GroundTruthObjects]
    sizes: dict[int, tuple[int, int]]  # (height, width)
    absent: dict[int, np.ndarray]  # classes that were verified to be absent
    not_exhaustive: dict[int, np.ndarray]  # classes whose objects may not all be annotated
    frequency: np.ndarray  # (K,) "r", "c", "f" or ""

    @classmethod
    def from_json(cls, ground_truth: CocoJson, thing_ids: Sequence[int]) -> _LvisGroundTruth:
        images = ground_truth["images"]
        if images and not any("neg_category_ids" in image for image in images):
            raise ValueError(
                "the ground truth is not in LVIS's format: no image has 'neg_category_ids'; if every class was "
                "annotated in every image, use CocoEvaluator"
            )
        class_of = {category_id: i for i, category_id in enumerate(thing_ids)}

        def classes(image: CocoImage, key: FederatedKey) -> np.ndarray:
            return np.array([class_of[i] for i in image.get(key, ()) if i in class_of], dtype=np.int64)

        letters = {category["id"]: category.get("frequency", "") for category in ground_truth["categories"]}
        return cls(
            objects=objects_by_image(ground_truth, thing_ids),
            sizes={image["id"]: (image["height"], image["width"]) for image in images},
            absent={image["id"]: classes(image, "neg_category_ids") for image in images},
            not_exhaustive={image["id"]: classes(image, "not_exhaustive_category_ids") for image in images},
            frequency=np.array([letters.get(category_id, "") for category_id in thing_ids]),
        )

    def is_annotated(self, image_id: int, classes: np.ndarray) -> np.ndarray:
        """Return a mask of the classes that annotators found in the image, or verified to be absent."""
        present = np.isin(classes, self.objects[image_id].classes)
        annotated: np.ndarray = present | np.isin(classes, self.absent[image_id])
        return annotated


def _overlaps(
    detections: _Detections,
    ground_truth: _LvisGroundTruth,
    image_id: int,
    task: str,
    dilation_ratio: float,
) -> ImageOverlaps:
    objects = ground_truth.objects[image_id]
    overlaps = np.zeros((len(detections.classes), len(objects.classes)))
    # The other detections overlap no object of their class.
    can_match = np.isin(detections.classes, objects.classes)
    if task == "box":
        areas = box_areas(detections.boxes)
        overlaps[can_match] = box_overlaps(detections.boxes[can_match], objects)
    else:
        masks = detections.masks or []
        areas = mask_areas(masks)
        gt_masks = [to_run_lengths(region, ground_truth.sizes[image_id]) for region in objects.regions]
        candidates = [masks[i] for i in np.flatnonzero(can_match)]
        mask_ious = mask_overlaps(candidates, gt_masks, objects.crowd)
        if task == "boundary":
            mask_ious *= detections.classes[can_match, None] == objects.classes
            mask_ious = limit_by_boundaries(mask_ious, candidates, gt_masks, objects.crowd, dilation_ratio)
        overlaps[can_match] = mask_ious
    return ImageOverlaps(
        classes=detections.classes,
        scores=detections.scores,
        areas=areas,
        gt_classes=objects.classes,
        gt_areas=objects.areas,
        gt_crowd=objects.crowd,
        overlaps=overlaps,
        ignore_if_unmatched=np.isin(detections.classes, ground_truth.not_exhaustive[image_id]),
    )
