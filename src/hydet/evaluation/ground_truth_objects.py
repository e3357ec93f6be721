"""Ground-truth objects in COCO's format as arrays, and their overlap with boxes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from faster_coco_eval import mask as rle

from hydet.data.annotations.rle import RunLengthCode
from hydet.data.datasets.coco_format import CocoAnnotation, CocoJson
from hydet.structures import pairwise_iou_rotated

from .matching import IOU_THRESHOLDS

__all__ = [
    "GroundTruthObjects",
    "box_areas",
    "box_overlaps",
    "iou_thresholds",
    "objects_by_image",
]


@dataclasses.dataclass
class GroundTruthObjects:
    """The G annotated objects of an image.

    Args:
        classes: ``(G,)`` int64 in 0 to K - 1.
        boxes: ``(G, 4)`` float64 as (x, y, w, h), or ``(G, 5)`` as (cx, cy, w, h, degrees counter-clockwise).
        areas: ``(G,)`` float64 in square pixels: ``area`` of the annotations, or w * h of rotated boxes.
        crowd: ``(G,)`` bool.
        regions: G segmentations in COCO's format, None for objects without one.
    """

    classes: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    regions: list[RunLengthCode | list[list[float]] | None]


def objects_by_image(
    ground_truth: CocoJson, thing_ids: Sequence[int], *, rotated: bool = False
) -> dict[int, GroundTruthObjects]:
    """Group the objects of the ground truth by image id, in the order of the annotations.

    Args:
        ground_truth: ground truth in COCO's format.
        thing_ids: category ids of the classes 0 to K - 1; objects of other categories are left out.
        rotated: True reads ``rotated_bbox``, or ``bbox`` at 0 degrees for an annotation without one.

    Raises:
        ValueError: if ``rotated`` is True and no annotation has a rotated box.
    """
    annotations = ground_truth["annotations"]
    if rotated and annotations and not any("rotated_bbox" in annotation for annotation in annotations):
        raise ValueError("the ground truth has no rotated boxes: no annotation has a 'rotated_bbox'")
    class_of = {category_id: i for i, category_id in enumerate(thing_ids)}
    by_image: dict[int, list[CocoAnnotation]] = {image["id"]: [] for image in ground_truth["images"]}
    for annotation in annotations:
        if annotation["category_id"] in class_of and annotation["image_id"] in by_image:
            by_image[annotation["image_id"]].append(annotation)
    return {image_id: _to_arrays(rows, class_of, rotated) for image_id, rows in by_image.items()}


def _to_arrays(
    annotations: Sequence[CocoAnnotation], class_of: Mapping[int, int], rotated: bool
) -> GroundTruthObjects:
    boxes = np.array([_box(annotation, rotated) for annotation in annotations], dtype=np.float64)
    boxes = boxes.reshape(-1, 5 if rotated else 4)
    areas = boxes[:, 2:4].prod(axis=1)
    if not rotated:
        areas = np.array([a.get("area", area) for a, area in zip(annotations, areas)], dtype=np.float64)
    return GroundTruthObjects(
        classes=np.array([class_of[a["category_id"]] for a in annotations], dtype=np.int64),
        boxes=boxes,
        areas=areas,
        crowd=np.array([bool(a.get("iscrowd", 0)) for a in annotations], dtype=bool),
        regions=[a.get("segmentation") for a in annotations],
    )


def _box(annotation: CocoAnnotation, rotated: bool) -> Sequence[float]:
    if rotated and "rotated_bbox" in annotation:
        return annotation["rotated_bbox"]
    x, y, w, h = annotation["bbox"]
    return (x + w / 2, y + h / 2, w, h, 0.0) if rotated else (x, y, w, h)


def box_areas(boxes: np.ndarray) -> np.ndarray:
    """Return the ``(D,)`` float64 areas of ``(D, 4)`` xyxy or ``(D, 5)`` rotated boxes."""
    boxes = boxes.astype(np.float64)
    sides = boxes[:, 2:4] if boxes.shape[1] == 5 else boxes[:, 2:] - boxes[:, :2]
    areas: np.ndarray = sides.prod(axis=1)
    return areas


def box_overlaps(boxes: np.ndarray, objects: GroundTruthObjects) -> np.ndarray:
    """Compute the IoU of boxes and objects; for a crowd, the fraction of the box that lies inside the crowd.

    Args:
        boxes: ``(D, 4)`` xyxy, or ``(D, 5)`` rotated if the objects are rotated.
        objects: G objects.

    Returns:
        ``(D, G)``, float32 for rotated boxes and float64 for others.
    """
    if not len(boxes) or not len(objects.boxes):
        return np.zeros((len(boxes), len(objects.boxes)))
    if boxes.shape[1] == 4:
        xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1, dtype=np.float64)
        return np.asarray(rle.iou(xywh, objects.boxes, objects.crowd.tolist())).reshape(len(boxes), -1)
    iou = pairwise_iou_rotated(torch.from_numpy(boxes), torch.from_numpy(objects.boxes).float()).numpy()
    if objects.crowd.any():
        areas = box_areas(boxes)[:, None]
        # iou = shared / (a + b - shared), solved for the shared area.
        shared = iou / (1 + iou) * (areas + objects.areas)
        inside = np.divide(shared, areas, out=np.zeros_like(shared), where=areas > 0)
        iou = np.where(objects.crowd, inside.clip(max=1), iou).astype(np.float32)
    return np.asarray(iou)


def iou_thresholds(rotated: bool) -> np.ndarray:
    """Return COCO's thresholds in the precision of ``box_overlaps``.

    The IoU of rotated boxes is rounded to float32, so the thresholds are rounded as well. Otherwise an IoU of 7/10
    would miss the threshold 0.7.
    """
    return IOU_THRESHOLDS.astype(np.float32) if rotated else IOU_THRESHOLDS
