"""Ground truth in COCO's format as arrays, and how boxes overlap it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from faster_coco_eval import mask as rle

from hydet.structures import pairwise_iou_rotated

from .matching import IOU_THRESHOLDS

__all__ = ["TruthObjects", "box_areas", "box_overlaps", "iou_thresholds", "objects_by_image"]


@dataclasses.dataclass
class TruthObjects:
    """The G annotated objects of one image.

    Args:
        classes: ``(G,)`` int64 in 0 ... K-1.
        boxes: ``(G, 4)`` float64 as (x, y, w, h), or ``(G, 5)`` as (cx, cy, w, h, degrees counter-clockwise).
        areas: ``(G,)`` float64: what the annotations say, or w * h of rotated boxes.
        crowd: ``(G,)`` bool.
        regions: G segmentations in COCO's format, None where there is none.
    """

    classes: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    regions: list[Any]


def objects_by_image(
    ground_truth: Mapping[str, Any], thing_ids: Sequence[int], *, rotated: bool = False
) -> dict[Any, TruthObjects]:
    """The objects of every image, in the order of the annotations.

    Args:
        ground_truth: in COCO's format.
        thing_ids: category ids of the classes 0 ... K-1; objects of other categories are left out.
        rotated: take ``rotated_bbox``, or ``bbox`` at 0 degrees where an annotation has none.

    Raises:
        ValueError: if rotated boxes are wanted and no annotation has one.
    """
    annotations = ground_truth["annotations"]
    if rotated and annotations and not any("rotated_bbox" in annotation for annotation in annotations):
        raise ValueError("the ground truth has no rotated boxes: no annotation has a 'rotated_bbox'")
    class_of = {number: i for i, number in enumerate(thing_ids)}
    rows: dict[Any, list[Mapping[str, Any]]] = {image["id"]: [] for image in ground_truth["images"]}
    for annotation in annotations:
        if annotation["category_id"] in class_of and annotation["image_id"] in rows:
            rows[annotation["image_id"]].append(annotation)
    return {image: _objects(own, class_of, rotated) for image, own in rows.items()}


def _objects(
    annotations: Sequence[Mapping[str, Any]], class_of: Mapping[int, int], rotated: bool
) -> TruthObjects:
    boxes = np.array([_box(annotation, rotated) for annotation in annotations], dtype=np.float64)
    boxes = boxes.reshape(-1, 5 if rotated else 4)
    areas = boxes[:, 2:4].prod(axis=1)
    if not rotated:
        areas = np.array([a.get("area", area) for a, area in zip(annotations, areas)], dtype=np.float64)
    return TruthObjects(
        classes=np.array([class_of[a["category_id"]] for a in annotations], dtype=np.int64),
        boxes=boxes,
        areas=areas,
        crowd=np.array([bool(a.get("iscrowd", 0)) for a in annotations], dtype=bool),
        regions=[a.get("segmentation") for a in annotations],
    )


def _box(annotation: Mapping[str, Any], rotated: bool) -> Sequence[float]:
    if not rotated:
        return annotation["bbox"]
    if "rotated_bbox" in annotation:
        return annotation["rotated_bbox"]
    x, y, w, h = annotation["bbox"]
    return (x + w / 2, y + h / 2, w, h, 0.0)


def box_areas(boxes: np.ndarray) -> np.ndarray:
    """``(D,)`` areas of ``(D, 4)`` xyxy or ``(D, 5)`` rotated boxes, in float64."""
    boxes = boxes.astype(np.float64)
    sides = boxes[:, 2:4] if boxes.shape[1] == 5 else boxes[:, 2:] - boxes[:, :2]
    return sides.prod(axis=1)


def box_overlaps(boxes: np.ndarray, truth: TruthObjects) -> np.ndarray:
    """IoU of boxes and objects; where an object is a crowd, the fraction of the box that lies in it.

    Args:
        boxes: ``(D, 4)`` xyxy, or ``(D, 5)`` rotated if the objects' are.
        truth: G objects.

    Returns:
        ``(D, G)``, float32 for rotated boxes, else float64.
    """
    if not len(boxes) or not len(truth.boxes):
        return np.zeros((len(boxes), len(truth.boxes)))
    if boxes.shape[1] == 4:
        xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1, dtype=np.float64)
        return np.asarray(rle.iou(xywh, truth.boxes, truth.crowd.tolist())).reshape(len(boxes), -1)
    iou = pairwise_iou_rotated(torch.from_numpy(boxes), torch.from_numpy(truth.boxes).float()).numpy()
    if truth.crowd.any():
        areas = box_areas(boxes)[:, None]
        shared = iou / (1 + iou) * (areas + truth.areas)
        within = np.divide(shared, areas, out=np.zeros_like(shared), where=areas > 0)
        iou = np.where(truth.crowd, within.clip(max=1), iou).astype(np.float32)
    return iou


def iou_thresholds(rotated: bool) -> np.ndarray:
    """COCO's thresholds for what ``box_overlaps`` gives.

    The IoU of rotated boxes is rounded to float32, so thresholds are rounded too: 7 of 10 pixels reach 0.7.
    """
    return IOU_THRESHOLDS.astype(np.float32) if rotated else IOU_THRESHOLDS
