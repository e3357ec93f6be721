"""COCO's average precision of boxes, masks and keypoints."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .ap_tables import class_table, summary_table
from .average_precision import class_ap, summarize
from .coco_results import TASKS, check_fields, results_to_coco_json
from .per_image import PerImageEvaluator

__all__ = ["CocoEvaluator"]

BACKENDS = ("faster_coco_eval", "pycocotools")


class CocoEvaluator(PerImageEvaluator):
    """Average precision as COCO defines it: per size, per class, averaged over IoU 0.50 to 0.95.

    Metrics are ``<task>/AP``, ``/AP50``, ``/AP75``, ``/APs``, ``/APm``, ``/APl`` (objects below 32², below 96²,
    and above), ``/AR`` with their sizes, and ``/AR1``, ``/AR10`` (one, ten detections an image), where the task is
    ``box``, ``mask`` or ``keypoints`` (which has no small objects and no AR1, AR10). A metric without any object
    to measure it on is NaN. Only images that were seen count, so a part of a dataset can be evaluated.

    Args:
        dataset: has ``metadata`` and ``to_coco()``, the ground truth in COCO's format.
        iou_types: which of ``"bbox"``, ``"segm"``, ``"keypoints"``.
        backend: ``"faster_coco_eval"``, or ``"pycocotools"`` for the same numbers more slowly.
        max_detections: the best so many an image and class count.
        per_class_metrics: also give ``<task>/AP/<class>``.
        keypoint_offset: how far the model's keypoints lie right of and below those of ``to_coco()``; by default the
            dataset's attribute of that name, or 0.

    Raises:
        ValueError: for unknown types or backends, and keypoints without sigmas in the metadata.
    """

    def __init__(
        self,
        dataset: Any,
        *,
        iou_types: Sequence[str] = ("bbox", "segm"),
        backend: str = "faster_coco_eval",
        max_detections: int = 100,
        per_class_metrics: bool = False,
        keypoint_offset: float | None = None,
    ) -> None:
        unknown = [name for name in iou_types if name not in TASKS]
        if unknown or not iou_types:
            raise ValueError(f"iou_types must be among {list(TASKS)}, got {list(iou_types)}")
        if backend not in BACKENDS:
            raise ValueError(f"backend must be one of {list(BACKENDS)}, got {backend!r}")
        if max_detections < 1:
            raise ValueError(f"max_detections must be at least 1, got {max_detections}")
        if "keypoints" in iou_types and not dataset.metadata.keypoint_sigmas:
            raise ValueError("keypoint AP needs keypoint_sigmas in the dataset's metadata")
        self.dataset = dataset
        self.metadata = dataset.metadata
        self.iou_types = tuple(iou_types)
        self.backend = backend
        self.max_detections = max_detections
        self.per_class_metrics = per_class_metrics
        if keypoint_offset is None:
            keypoint_offset = getattr(dataset, "keypoint_offset", 0.0)
        self.keypoint_offset = keypoint_offset
        self._ground_truth: dict[str, Any] = {}
        super().__init__()

    def _collect(self, entry: Mapping[str, Any], output: Mapping[str, Any]) -> list[dict[str, Any]]:
        if "instances" in output:
            check_fields(output["instances"], self.iou_types)
        return results_to_coco_json([entry], [output], self.metadata, keypoint_offset=self.keypoint_offset)

    def _measure(self, results: dict[Any, list[dict[str, Any]]]) -> dict[str, float]:
        if not self._ground_truth:
            self._ground_truth = _completed(self.dataset.to_coco())
        self._check_images(results, [image["id"] for image in self._ground_truth["images"]])
        metrics: dict[str, float] = {}
        per_class: dict[str, list[float]] = {}
        for name in self.iou_types:
            evaluated = self._run(name, results)
            task = TASKS[name]
            by_id = dict(zip(sorted(self.metadata.thing_ids), class_ap(evaluated["precision"]), strict=True))
            per_class[task] = [by_id[i] for i in self.metadata.thing_ids]
            numbers = summarize(evaluated, with_counts=name != "keypoints")
            metrics |= {f"{task}/{key}": value for key, value in numbers.items()}
            if self.per_class_metrics:
                pairs = zip(self.metadata.thing_classes, per_class[task], strict=True)
                metrics |= {f"{task}/AP/{label}": value for label, value in pairs}
        counts = self._object_counts(set(results))
        self._tables = [
            summary_table(metrics, [TASKS[name] for name in self.iou_types], len(results)),
            class_table(self.metadata.thing_classes, per_class, counts),
        ]
        return metrics

    def _object_counts(self, images: set[Any]) -> list[int]:
        counts = dict.fromkeys(self.metadata.thing_ids, 0)
        for annotation in self._ground_truth["annotations"]:
            if annotation["image_id"] in images and not annotation.get("iscrowd"):
                counts[annotation["category_id"]] = counts.get(annotation["category_id"], 0) + 1
        return [counts[i] for i in self.metadata.thing_ids]

    def _run(self, name: str, results: dict[Any, list[dict[str, Any]]]) -> dict[str, np.ndarray]:
        keys = {"image_id", "category_id", "score"} | {
            {"bbox": "bbox", "segm": "segmentation", "keypoints": "keypoints"}[name]
        }
        # Only its own shape: with a box beside its mask, an object's size would be that of the box.
        found = [
            {k: v for k, v in result.items() if k in keys} for part in results.values() for result in part
        ]
        make_coco, make_evaluation = _backend(self.backend)
        with contextlib.redirect_stdout(io.StringIO()):
            truth = make_coco(self._ground_truth)
            detected = truth.loadRes(found) if found else _nothing_found(make_coco, self._ground_truth)
            run = make_evaluation(truth, detected, name)
            run.params.imgIds = sorted(results)
            run.params.catIds = list(self.metadata.thing_ids)
            run.params.maxDets = sorted(
                {min(1, self.max_detections), min(10, self.max_detections), self.max_detections}
            )
            if name == "keypoints":
                run.params.maxDets = [min(20, self.max_detections)]
                run.params.kpt_oks_sigmas = np.asarray(self.metadata.keypoint_sigmas, dtype=np.float64)
            run.evaluate()
            run.accumulate()
        shape = tuple(run.eval["counts"])  # IoUs, recalls, classes, sizes, numbers of detections
        return {
            "precision": np.asarray(run.eval["precision"]).reshape(shape),
            "recall": np.asarray(run.eval["recall"]).reshape(shape[:1] + shape[2:]),
            "iou": np.asarray(run.params.iouThrs),
            "max_detections": np.asarray(run.params.maxDets),
        }


def _backend(name: str) -> tuple[Any, Any]:
    if name == "faster_coco_eval":
        from faster_coco_eval import COCO, COCOeval_faster

        def make_evaluation(truth: Any, detected: Any, iou_type: str) -> Any:
            return COCOeval_faster(truth, detected, iou_type, print_function=lambda *_: None)

        return lambda dataset: COCO(_copied(dataset)), make_evaluation
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise ValueError("backend='pycocotools' needs it installed: pip install 'hydet[eval]'") from error

    def make_coco(dataset: dict[str, Any]) -> Any:
        coco = COCO()
        coco.dataset = _copied(dataset)
        coco.createIndex()
        return coco

    return make_coco, COCOeval


def _copied(ground_truth: dict[str, Any]) -> dict[str, Any]:
    """With mappings of its own for images and annotations: the tools write into them."""
    own = {key: [dict(entry) for entry in ground_truth[key]] for key in ("images", "annotations")}
    return {**ground_truth, **own}


def _nothing_found(make_coco: Any, ground_truth: dict[str, Any]) -> Any:
    return make_coco({**ground_truth, "annotations": []})


def _completed(ground_truth: dict[str, Any]) -> dict[str, Any]:
    """With the keys that COCO's tools insist on, where a file leaves them out."""
    ground_truth = {"info": {}, **ground_truth}
    annotations = []
    for annotation in ground_truth["annotations"]:
        extra: dict[str, Any] = {}
        if "iscrowd" not in annotation:
            extra["iscrowd"] = 0
        if "area" not in annotation:
            extra["area"] = float(annotation["bbox"][2] * annotation["bbox"][3])
        if "keypoints" in annotation and "num_keypoints" not in annotation:
            extra["num_keypoints"] = int(sum(v > 0 for v in annotation["keypoints"][2::3]))
        annotations.append({**annotation, **extra})
    ground_truth["annotations"] = annotations
    return ground_truth
