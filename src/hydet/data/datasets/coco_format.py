"""COCO's JSON format, and the conversion of records to it for evaluation and :func:`hydet.data.write_coco`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, NotRequired, TypedDict

import numpy as np

from hydet.data.annotations.rle import RunLengthCode
from hydet.data.datasets.metadata import Metadata
from hydet.data.datasets.record import Record, Segment, segment_to_mask

__all__ = [
    "CocoAnnotation",
    "CocoCategory",
    "CocoImage",
    "CocoJson",
    "FederatedKey",
    "image_to_coco",
    "records_to_coco",
    "segment_to_coco",
]

# Keys of ``CocoImage`` that only LVIS has.
FederatedKey = Literal["neg_category_ids", "not_exhaustive_category_ids"]


class CocoImage(TypedDict):
    """One entry of ``images``.

    Keys:
        id: unique id.
        file_name: path relative to the image folder.
        height: in pixels.
        width: in pixels.
        neg_category_ids: LVIS only; categories that are verified to be absent.
        not_exhaustive_category_ids: LVIS only; categories of which some objects may not be annotated.
    """

    id: int
    file_name: str
    height: int
    width: int
    neg_category_ids: NotRequired[list[int]]
    not_exhaustive_category_ids: NotRequired[list[int]]


class CocoAnnotation(TypedDict):
    """One entry of ``annotations``: an object or a crowd region. All coordinates are in pixels of the image.

    Keys:
        id: unique id; not 0, because COCO's evaluation reads the id 0 as "no match".
        image_id: id of the image.
        category_id: id of the category.
        bbox: ``[x, y, w, h]``.
        area: area of the region in square pixels.
        iscrowd: 1 for a region that covers several objects, otherwise 0.
        ignore: 1 for an object that VOC's evaluation does not count ("difficult").
        segmentation: polygons ``[x0, y0, x1, y1, ...]`` of which the region is the union, or a run-length code.
        keypoints: x, y and visibility of each keypoint, concatenated.
        num_keypoints: number of labeled keypoints.
        rotated_bbox: ``[cx, cy, w, h, degrees counterclockwise]``, an extension of COCO's format.
    """

    id: int
    image_id: int
    category_id: int
    bbox: list[float]
    area: NotRequired[float]
    iscrowd: NotRequired[int]
    ignore: NotRequired[int]
    segmentation: NotRequired[RunLengthCode | list[list[float]]]
    keypoints: NotRequired[list[float]]
    num_keypoints: NotRequired[int]
    rotated_bbox: NotRequired[list[float]]


class CocoCategory(TypedDict):
    """One entry of ``categories``.

    Keys:
        id: unique id.
        name: name of the category.
        supercategory: name of a group of categories.
        keypoints: names of the keypoints.
        skeleton: pairs of keypoints to connect with a line, counted from 1.
        keypoint_sigmas: tolerances of the keypoints in COCO's object keypoint similarity, an extension of the format.
        frequency: LVIS only; ``"r"``, ``"c"`` or ``"f"`` for rare, common or frequent.
    """

    id: int
    name: str
    supercategory: NotRequired[str]
    keypoints: NotRequired[list[str]]
    skeleton: NotRequired[list[list[int]]]
    keypoint_sigmas: NotRequired[list[float]]
    frequency: NotRequired[str]


class CocoJson(TypedDict):
    """Ground truth in COCO's JSON format.

    Keys:
        info: description of the dataset; not used.
        images: all images, including those without annotations.
        annotations: objects and crowd regions of all images.
        categories: classes of the objects.
    """

    info: NotRequired[dict[str, object]]
    images: list[CocoImage]
    annotations: list[CocoAnnotation]
    categories: list[CocoCategory]


def segment_to_coco(segment: Segment, height: int, width: int) -> RunLengthCode | list[list[float]]:
    """Convert a region to the value of ``segmentation`` in COCO's JSON.

    Args:
        segment: polygons, a run-length code, or None.
        height: image height in pixels.
        width: image width in pixels.

    Returns:
        A list of polygons, or a dict with ``size`` and ``counts``. None becomes the code of an empty mask.
    """
    if segment is None:
        return {"size": [height, width], "counts": [height * width]}
    if isinstance(segment, Mapping):
        counts = segment["counts"]
        return {"size": segment["size"], "counts": counts.decode() if isinstance(counts, bytes) else counts}
    return [polygon.tolist() for polygon in segment]


def records_to_coco(
    records: Iterable[Record], metadata: Metadata, *, keypoint_offset: float = 0.0
) -> CocoJson:
    """Convert records to COCO's JSON format.

    Annotations are numbered 1, 2, ... because COCO's evaluation reads the id 0 as "no match". ``area`` is the number of
    mask pixels where records have masks, and the area of the box otherwise.

    Args:
        records: records with annotations.
        metadata: class names, category ids and keypoint names.
        keypoint_offset: subtracted from x and y of labeled keypoints, in pixels.
    """
    images: list[CocoImage] = []
    annotations: list[CocoAnnotation] = []
    for record in records:
        images.append(image_to_coco(record))
        for row in range(len(record)):
            annotation_id = len(annotations) + 1
            annotations.append(_annotation(record, row, annotation_id, metadata, keypoint_offset))
    categories: list[CocoCategory] = [
        {"id": category_id, "name": name}
        for category_id, name in zip(metadata.thing_ids, metadata.thing_classes)
    ]
    if metadata.keypoint_names:
        for category in categories:
            category["keypoints"] = list(metadata.keypoint_names)
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def image_to_coco(record: Record) -> CocoImage:
    """Return the entry of ``images`` for a record."""
    return {
        "id": record.image_id,
        "file_name": record.file_name,
        "height": record.height,
        "width": record.width,
    }


def _annotation(
    record: Record, row: int, annotation_id: int, metadata: Metadata, keypoint_offset: float
) -> CocoAnnotation:
    x1, y1, x2, y2 = record.boxes[row].tolist()
    annotation: CocoAnnotation = {
        "id": annotation_id,
        "image_id": record.image_id,
        "category_id": metadata.thing_ids[int(record.classes[row])],
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": (x2 - x1) * (y2 - y1),
        "iscrowd": int(record.iscrowd[row]),
    }
    if record.segments is not None:
        segment = record.segments[row]
        annotation["segmentation"] = segment_to_coco(segment, record.height, record.width)
        if segment is not None:
            annotation["area"] = int(segment_to_mask(segment, record.height, record.width).sum())
    elif record.masks is not None:
        mask = record.masks[row].numpy()
        annotation["segmentation"] = _uncompressed_code(mask)
        annotation["area"] = int(mask.sum())
    if record.keypoints is not None:
        keypoints = record.keypoints[row].double()  # (K, 3)
        labeled = keypoints[:, 2:] > 0
        keypoints[:, :2] -= keypoint_offset * labeled
        annotation["keypoints"] = keypoints.reshape(-1).tolist()
        annotation["num_keypoints"] = int(labeled.sum())
    if record.rotated_boxes is not None:
        annotation["rotated_bbox"] = record.rotated_boxes[row].tolist()
    return annotation


def _uncompressed_code(mask: np.ndarray) -> RunLengthCode:
    """Encode an ``(H, W)`` bool mask as runs of zeros and ones, zeros first, in column order."""
    pixels = mask.reshape(-1, order="F")
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    runs = np.diff([0, *changes, len(pixels)]).tolist()
    return {"size": list(mask.shape), "counts": [0, *runs] if len(pixels) and pixels[0] else runs}
