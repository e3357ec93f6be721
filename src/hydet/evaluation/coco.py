"""COCO's average precision of boxes, masks and keypoints."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from hydet.data.datasets.coco_format import CocoAnnotation, CocoJson
from hydet.data.datasets.dataset import as_detection_dataset
from hydet.structures import ModelInput, ModelOutput

from .ap_tables import class_table, summary_table
from .average_precision import PrecisionRecall, class_ap, summarize
from .boundary_precision import boundary_precision
from .coco_results import TASKS, CocoResult, check_fields, results_to_coco_json
from .mask_overlaps import DILATION_RATIO, check_dilation_ratio
from .per_image_evaluator import PerImageEvaluator

if TYPE_CHECKING:
    from hydet.data.datasets.dataset import RecordSource

__all__ = ["CocoEvaluator"]

BACKENDS = ("faster_coco_eval", "pycocotools")


class CocoEvaluator(PerImageEvaluator[list[CocoResult]]):
    """Average precision as COCO defines it: by size, by class, averaged over IoU 0.50 to 0.95.

    Metrics are ``<task>/AP``, ``/AP50``, ``/AP75``, ``/APs``, ``/APm``, ``/APl`` (objects with an area below 32²,
    from 32² to 96², and above, in square pixels), ``/AR`` with its sizes, and ``/AR1``, ``/AR10`` (one and ten detections
    per image). The task is ``box``, ``mask``, ``boundary`` or ``keypoints``. Keypoints have no small objects; keypoints
    and boundaries have no AR1 and AR10. A metric without objects is NaN. Only images that the evaluator received count,
    so a part of a dataset can be evaluated.

    Args:
        dataset: dataset with ``metadata`` and ``to_coco()``, the ground truth in COCO's format.
        iou_types: any of ``"bbox"``, ``"segm"`` and ``"keypoints"``.
        backend: ``"faster_coco_eval"``, or ``"pycocotools"`` for the same numbers more slowly.
        max_detections: detections per image and class to evaluate, those with the highest scores.
        per_class_metrics: True adds ``<task>/AP/<class>``.
        keypoint_offset: offset of the model's keypoints from those of ``to_coco()``, in x and y in pixels; by default
            the dataset's ``keypoint_offset``.
        keypoint_area: size by which a detection counts in ``keypoints/APm`` and ``/APl``: ``"box"``, the area of its
            box, as detectron2 does; or ``"keypoints"``, the area that its keypoints span, as COCO's tools do for results
            without boxes. ``keypoints/AP`` is the same.
        boundary: True adds the task ``boundary``: AP of masks in which the IoU of a pair is the smaller of its mask IoU
            and its boundary IoU, which is sensitive to the outlines of large objects too (Cheng et al. 2021,
            arXiv:2103.16562). It does not depend on the backend.
        boundary_dilation_ratio: width of a boundary over the diagonal of the image.

    Raises:
        ValueError: if a type or backend is unknown, keypoints have no sigmas in the metadata, or ``boundary`` is True
            without masks.
    """

    def __init__(
        self,
        dataset: RecordSource,
        *,
        iou_types: Sequence[str] = ("bbox", "segm"),
        backend: str = "faster_coco_eval",
        max_detections: int = 100,
        per_class_metrics: bool = False,
        keypoint_offset: float | None = None,
        keypoint_area: Literal["box", "keypoints"] = "box",
        boundary: bool = False,
        boundary_dilation_ratio: float = DILATION_RATIO,
    ) -> None:
        super().__init__()
        if not iou_types or any(name not in TASKS for name in iou_types):
            raise ValueError(f"iou_types must be among {list(TASKS)}, got {list(iou_types)}")
        if backend not in BACKENDS:
            raise ValueError(f"backend must be one of {list(BACKENDS)}, got {backend!r}")
        if max_detections < 1:
            raise ValueError(f"max_detections must be at least 1, got {max_detections}")
        self.dataset = as_detection_dataset(dataset)
        self.metadata = self.dataset.metadata
        if "keypoints" in iou_types and not self.metadata.keypoint_sigmas:
            raise ValueError("keypoint AP needs keypoint_sigmas in the dataset's metadata")
        if keypoint_area not in ("box", "keypoints"):
            raise ValueError(f"keypoint_area must be 'box' or 'keypoints', got {keypoint_area!r}")
        if boundary and "segm" not in iou_types:
            raise ValueError(f"boundary=True needs masks ('segm'), but iou_types is {list(iou_types)}")
        self.keypoint_area = keypoint_area
        self.boundary = boundary
        self.boundary_dilation_ratio = check_dilation_ratio(boundary_dilation_ratio)
        self.iou_types = tuple(iou_types)
        self.backend = backend
        self.max_detections = max_detections
        self.per_class_metrics = per_class_metrics
        self.keypoint_offset = self.dataset.keypoint_offset if keypoint_offset is None else keypoint_offset
        self._ground_truth: CocoJson | None = None

    takes_roi_masks = True

    def _collect(self, entry: ModelInput, output: ModelOutput) -> list[CocoResult]:
        if "instances" in output:
            check_fields(output["instances"], self.iou_types)
        return results_to_coco_json([entry], [output], self.metadata, keypoint_offset=self.keypoint_offset)

    def _compute(self, results: Mapping[int, list[CocoResult]]) -> dict[str, float]:
        if self._ground_truth is None:
            self._ground_truth = _add_required_keys(self.dataset.to_coco())
        ground_truth = self._ground_truth
        self._check_images(results, [image["id"] for image in ground_truth["images"]])
        metrics: dict[str, float] = {}
        per_class: dict[str, list[float]] = {}
        for iou_type in self.iou_types:
            evaluated = self._run_backend(iou_type, ground_truth, results)
            # The tools sort categories by id, the metadata has its own order.
            by_id = dict(zip(sorted(self.metadata.thing_ids), class_ap(evaluated.precision), strict=True))
            per_class[TASKS[iou_type]] = [by_id[i] for i in self.metadata.thing_ids]
            metrics |= _named(TASKS[iou_type], summarize(evaluated, with_counts=iou_type != "keypoints"))
        if self.boundary:
            evaluated = boundary_precision(
                ground_truth,
                results,
                self.metadata.thing_ids,
                max_detections=self.max_detections,
                dilation_ratio=self.boundary_dilation_ratio,
            )
            per_class["boundary"] = class_ap(evaluated.precision)
            metrics |= _named("boundary", summarize(evaluated, with_counts=False))
        if self.per_class_metrics:
            for task, values in per_class.items():
                pairs = zip(self.metadata.thing_classes, values, strict=True)
                metrics |= _named(f"{task}/AP", dict(pairs))
        counts = self._object_counts(ground_truth, results.keys())
        self._tables = [
            summary_table(metrics, list(per_class), len(results)),
            class_table(self.metadata.thing_classes, per_class, counts),
        ]
        return metrics

    def _object_counts(self, ground_truth: CocoJson, image_ids: Collection[int]) -> list[int]:
        counts = dict.fromkeys(self.metadata.thing_ids, 0)
        for annotation in ground_truth["annotations"]:
            if annotation["image_id"] in image_ids and not annotation.get("iscrowd"):
                counts[annotation["category_id"]] = counts.get(annotation["category_id"], 0) + 1
        return [counts[i] for i in self.metadata.thing_ids]

    def _run_backend(
        self, iou_type: str, ground_truth: CocoJson, results: Mapping[int, list[CocoResult]]
    ) -> PrecisionRecall:
        shape_key = {"bbox": "bbox", "segm": "segmentation", "keypoints": "keypoints"}[iou_type]
        keys = {"image_id", "category_id", "score", shape_key}
        if iou_type == "keypoints" and self.keypoint_area == "box":
            keys.add("bbox")
        # Leave out other shapes: with a box beside its mask, the tools would measure an object's size by its box.
        detections = [
            {k: v for k, v in result.items() if k in keys} for part in results.values() for result in part
        ]
        backend = _load_backend(self.backend)
        with contextlib.redirect_stdout(io.StringIO()):
            coco_gt = backend.make_coco(ground_truth)
            if detections:
                coco_dt = coco_gt.loadRes(detections)
            else:  # loadRes fails on an empty list
                coco_dt = backend.make_coco({**ground_truth, "annotations": []})
            run = backend.make_evaluation(coco_gt, coco_dt, iou_type)
            run.params.imgIds = sorted(results)
            run.params.catIds = list(self.metadata.thing_ids)
            run.params.maxDets = sorted(
                {min(1, self.max_detections), min(10, self.max_detections), self.max_detections}
            )
            if iou_type == "keypoints":
                run.params.maxDets = [min(20, self.max_detections)]
                run.params.kpt_oks_sigmas = np.asarray(self.metadata.keypoint_sigmas, dtype=np.float64)
            run.evaluate()
            run.accumulate()
        shape = tuple(run.eval["counts"])  # (T, 101, K, A, M)
        return PrecisionRecall(
            precision=np.asarray(run.eval["precision"]).reshape(shape),
            recall=np.asarray(run.eval["recall"]).reshape(shape[:1] + shape[2:]),
            iou_thresholds=np.asarray(run.params.iouThrs),
            max_detections=[int(limit) for limit in run.params.maxDets],
        )


def _named(prefix: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f"{prefix}/{name}": value for name, value in values.items()}


class _Backend(NamedTuple):
    """Constructors of COCO's tools, which have no type annotations."""

    make_coco: Callable[[CocoJson], Any]
    make_evaluation: Callable[[Any, Any, str], Any]


def _load_backend(name: str) -> _Backend:
    if name == "faster_coco_eval":
        from faster_coco_eval import COCO as FastCOCO
        from faster_coco_eval import COCOeval_faster

        def make_evaluation(coco_gt: Any, coco_dt: Any, iou_type: str) -> Any:
            return COCOeval_faster(coco_gt, coco_dt, iou_type, print_function=lambda *_: None)

        return _Backend(lambda ground_truth: FastCOCO(_copy_rows(ground_truth)), make_evaluation)
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise ValueError("backend='pycocotools' needs this package: pip install 'hydet[eval]'") from error

    def make_coco(ground_truth: CocoJson) -> Any:
        coco = COCO()
        coco.dataset = _copy_rows(ground_truth)
        coco.createIndex()
        return coco

    return _Backend(make_coco, COCOeval)


def _copy_rows(ground_truth: CocoJson) -> CocoJson:
    """Copy the dicts of images and annotations, since the tools write into them."""
    return {
        **ground_truth,
        "images": [{**image} for image in ground_truth["images"]],
        "annotations": [{**annotation} for annotation in ground_truth["annotations"]],
    }


def _add_required_keys(ground_truth: CocoJson) -> CocoJson:
    """Add the keys that COCO's tools require to annotations that lack them."""
    annotations: list[CocoAnnotation] = []
    for annotation in ground_truth["annotations"]:
        complete: CocoAnnotation = {**annotation}
        complete.setdefault("iscrowd", 0)
        if "area" not in complete:
            complete["area"] = float(complete["bbox"][2] * complete["bbox"][3])
        if "keypoints" in complete and "num_keypoints" not in complete:
            complete["num_keypoints"] = int(sum(v > 0 for v in complete["keypoints"][2::3]))
        annotations.append(complete)
    return {"info": {}, **ground_truth, "annotations": annotations}
