"""LVIS's average precision of boxes and masks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from faster_coco_eval import mask as rle

from .ap_tables import COLUMNS, summary_table
from .average_precision import accumulate, mean_of_measured, summarize
from .coco_results import TASKS, check_fields, instances_of, run_lengths
from .matching import ImageOverlaps, match
from .per_image import PerImageEvaluator
from .truth_objects import TruthObjects, box_areas, box_overlaps, objects_by_image

__all__ = ["LvisEvaluator"]

IOU_TYPES = ("bbox", "segm")
FREQUENCIES = ("r", "c", "f")  # rare, common, frequent in the training images


class LvisEvaluator(PerImageEvaluator):
    """Average precision under LVIS's federated annotations, where nobody looked for every class in every image.

    In each image only detections of classes count that it has objects of, or that are known to be absent
    (``neg_category_ids``). Of the classes whose objects may not all be annotated (``not_exhaustive_category_ids``) a
    detection that matches nothing is no mistake. All else is as in COCO, but the limit of detections is for all
    classes of an image together.

    Metrics are ``<task>/AP``, ``/AP50``, ``/AP75``, ``/APs``, ``/APm``, ``/APl``, means over the rare, common and
    frequent classes ``/APr``, ``/APc``, ``/APf``, and ``/AR`` with its sizes, where the task is ``box`` or ``mask``.
    They lie between 0 and 1; without any object to measure on they are NaN. Only images that were seen count.

    Args:
        dataset: has ``metadata`` and ``to_coco()``, ground truth in LVIS's format: COCO's, with the lists above for
            each image and the ``frequency`` (r, c, f) of each category.
        iou_types: which of ``"bbox"``, ``"segm"``.
        max_detections: the best so many an image count.

    Raises:
        ValueError: for unknown types, or if ``max_detections`` is not positive.

    Source: Gupta et al. 2019 (arXiv:1908.03195), section 2.
    """

    def __init__(
        self, dataset: Any, *, iou_types: Sequence[str] = IOU_TYPES, max_detections: int = 300
    ) -> None:
        if not iou_types or any(name not in IOU_TYPES for name in iou_types):
            raise ValueError(f"iou_types must be among {list(IOU_TYPES)}, got {list(iou_types)}")
        if max_detections < 1:
            raise ValueError(f"max_detections must be at least 1, got {max_detections}")
        self.dataset = dataset
        self.metadata = dataset.metadata
        self.iou_types = tuple(iou_types)
        self.max_detections = max_detections
        self._truth: _LvisTruth | None = None
        super().__init__()

    def _collect(self, entry: Mapping[str, Any], output: Mapping[str, Any]) -> _Detections:
        found = instances_of(entry, output, len(self.metadata.thing_ids))
        check_fields(found, self.iou_types)
        kept = found.scores.argsort(descending=True, stable=True)[: self.max_detections]
        found = found[kept]
        return _Detections(
            classes=found.pred_classes.cpu().numpy(),
            scores=found.scores.detach().double().cpu().numpy(),
            boxes=found.pred_boxes.tensor.detach().float().cpu().numpy(),
            codes=run_lengths(found.pred_masks) if "segm" in self.iou_types else None,
        )

    def _measure(self, results: dict[Any, _Detections]) -> dict[str, float]:
        if self._truth is None:
            self._truth = _LvisTruth.of(self.dataset.to_coco(), self.metadata.thing_ids)
        truth = self._truth
        self._check_images(results, truth.objects)
        counted = {image: found[truth.looked_for(image, found.classes)] for image, found in results.items()}
        metrics: dict[str, float] = {}
        for name in self.iou_types:
            overlaps = [_overlaps(found, truth, image, name) for image, found in counted.items()]
            evaluated = accumulate(match(overlaps), len(self.metadata.thing_ids), self.max_detections)
            numbers = summarize(evaluated, with_counts=False)
            for letter in FREQUENCIES:
                members = evaluated["precision"][:, :, truth.frequency == letter, 0]
                numbers[f"AP{letter}"] = mean_of_measured(members)
            metrics |= {f"{TASKS[name]}/{key}": value for key, value in numbers.items()}
        columns = [*COLUMNS[:-1], *[f"AP{letter}" for letter in FREQUENCIES], COLUMNS[-1]]
        tasks = [TASKS[name] for name in self.iou_types]
        self._tables = [summary_table(metrics, tasks, len(results), columns)]
        return metrics


@dataclasses.dataclass
class _Detections:
    """Of one image."""

    classes: np.ndarray  # (D,)
    scores: np.ndarray  # (D,) float64
    boxes: np.ndarray  # (D, 4) xyxy
    codes: list[dict[str, Any]] | None  # D run-length codes of masks

    def __getitem__(self, rows: np.ndarray) -> _Detections:
        codes = None if self.codes is None else [self.codes[i] for i in np.flatnonzero(rows)]
        return _Detections(self.classes[rows], self.scores[rows], self.boxes[rows], codes)


@dataclasses.dataclass
class _LvisTruth:
    """The ground truth by image, with classes 0 ... K-1."""

    objects: dict[Any, TruthObjects]
    sizes: dict[Any, tuple[int, int]]  # (height, width)
    absent: dict[Any, np.ndarray]
    not_exhaustive: dict[Any, np.ndarray]
    frequency: np.ndarray  # (K,) "r", "c", "f" or ""

    @classmethod
    def of(cls, ground_truth: Mapping[str, Any], thing_ids: Sequence[int]) -> _LvisTruth:
        images = ground_truth["images"]
        if images and not any("neg_category_ids" in image for image in images):
            raise ValueError(
                "the ground truth is not LVIS's: no image has 'neg_category_ids'; where every class was looked for "
                "in every image, use CocoEvaluator"
            )
        class_of = {number: i for i, number in enumerate(thing_ids)}

        def classes(image: Mapping[str, Any], key: str) -> np.ndarray:
            return np.array([class_of[i] for i in image.get(key, ()) if i in class_of], dtype=np.int64)

        letters = {category["id"]: category.get("frequency", "") for category in ground_truth["categories"]}
        return cls(
            objects=objects_by_image(ground_truth, thing_ids),
            sizes={image["id"]: (image["height"], image["width"]) for image in images},
            absent={image["id"]: classes(image, "neg_category_ids") for image in images},
            not_exhaustive={image["id"]: classes(image, "not_exhaustive_category_ids") for image in images},
            frequency=np.array([letters.get(number, "") for number in thing_ids]),
        )

    def looked_for(self, image: Any, classes: np.ndarray) -> np.ndarray:
        """Which detections are of a class that the image has, or is known not to have."""
        return np.isin(classes, self.objects[image].classes) | np.isin(classes, self.absent[image])


def _overlaps(found: _Detections, truth: _LvisTruth, image: Any, iou_type: str) -> ImageOverlaps:
    objects = truth.objects[image]
    overlaps = np.zeros((len(found.classes), len(objects.classes)))
    rivals = np.isin(found.classes, objects.classes)  # the others overlap nothing of their class
    if iou_type == "bbox":
        areas = box_areas(found.boxes)
        overlaps[rivals] = box_overlaps(found.boxes[rivals], objects)
    else:
        codes = found.codes or []
        areas = np.asarray(rle.area(codes), dtype=np.float64).reshape(-1)
        if rivals.any():
            regions = [_code(region, truth.sizes[image]) for region in objects.regions]
            own = [codes[i] for i in np.flatnonzero(rivals)]
            overlaps[rivals] = np.asarray(rle.iou(own, regions, objects.crowd.tolist()))
    return ImageOverlaps(
        classes=found.classes,
        scores=found.scores,
        areas=areas,
        gt_classes=objects.classes,
        gt_areas=objects.areas,
        gt_crowd=objects.crowd,
        overlaps=overlaps,
        excused=np.isin(found.classes, truth.not_exhaustive[image]),
    )


def _code(region: Any, size: tuple[int, int]) -> dict[str, Any]:
    """A segmentation of COCO's format as one compressed run-length code."""
    height, width = size
    if not region:
        region = {"size": [height, width], "counts": [height * width]}
    if isinstance(region, list):
        return rle.merge(rle.frPyObjects(region, height, width))
    if isinstance(region["counts"], list):
        return rle.frPyObjects([region], height, width)[0]
    return region
