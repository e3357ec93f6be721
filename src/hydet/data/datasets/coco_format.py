"""Records in the form of COCO's JSON, which evaluation and :func:`hydet.data.write_coco` use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from hydet.data.datasets.metadata import Metadata
from hydet.data.datasets.record import Record, Segment, segment_to_mask

__all__ = ["records_to_coco", "segment_to_coco"]


def segment_to_coco(segment: Segment, height: int, width: int) -> dict[str, Any] | list[list[float]]:
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
) -> dict[str, Any]:
    """Convert records to COCO's JSON format.

    Annotations are numbered 1, 2, ... because COCO's evaluation reads the id 0 as "no match". ``area`` is the number of
    mask pixels where records have masks, and the area of the box otherwise.

    Args:
        records: records with annotations.
        metadata: class names, category ids and keypoint names.
        keypoint_offset: subtracted from x and y of labeled keypoints, in pixels.

    Returns:
        A dict with ``info``, ``images``, ``annotations`` and ``categories``.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for record in records:
        images.append(
            {
                "id": record.image_id,
                "file_name": record.file_name,
                "height": record.height,
                "width": record.width,
            }
        )
        for row in range(len(record)):
            annotation = _annotation(record, row, metadata, keypoint_offset)
            annotations.append({"id": len(annotations) + 1, **annotation})
    keypoints = {"keypoints": list(metadata.keypoint_names)} if metadata.keypoint_names else {}
    categories = [
        {"id": category_id, "name": name, **keypoints}
        for category_id, name in zip(metadata.thing_ids, metadata.thing_classes)
    ]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def _annotation(record: Record, row: int, metadata: Metadata, keypoint_offset: float) -> dict[str, Any]:
    x1, y1, x2, y2 = record.boxes[row].tolist()
    annotation: dict[str, Any] = {
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


def _uncompressed_code(mask: np.ndarray) -> dict[str, Any]:
    """Encode an ``(H, W)`` bool mask as runs of zeros and ones, zeros first, in column order."""
    pixels = mask.reshape(-1, order="F")
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    runs = np.diff([0, *changes, len(pixels)]).tolist()
    return {"size": list(mask.shape), "counts": [0, *runs] if len(pixels) and pixels[0] else runs}
