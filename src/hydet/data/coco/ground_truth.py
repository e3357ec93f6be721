"""Conversion of flat annotations back to COCO's JSON, for evaluation and export."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from hydet.data.coco.flat_storage import FlatAnnotations, FlatImages
from hydet.data.coco.object_scaling import ObjectScaling
from hydet.data.datasets.coco_format import CocoAnnotation, CocoCategory, CocoImage, CocoJson, segment_to_coco
from hydet.data.datasets.metadata import Metadata

__all__ = ["annotations_to_coco"]


def annotations_to_coco(
    annotations: FlatAnnotations,
    images: FlatImages,
    *,
    image_indices: Sequence[int],
    metadata: Metadata,
    with_masks: bool,
    frequencies: Mapping[int, str],
    scaling_of: Callable[[int], ObjectScaling],
    keypoint_offset: float,
) -> CocoJson:
    """Convert flat annotations back to COCO's JSON, with the ids of the original file.

    Annotation 0 gets an unused id, because COCO's evaluation reads the id 0 as "no match".

    Args:
        annotations: annotations of all images.
        images: all images.
        image_indices: indices of the images to include.
        metadata: names and category ids.
        with_masks: True to include ``segmentation``; an object without a region gets an empty mask.
        frequencies: LVIS's ``frequency`` by category id.
        scaling_of: scaling of the labels by image index, for images that were resized after labeling.
        keypoint_offset: distance of the pixel centers from the integers in keypoints.
    """
    unused_id = int(annotations.ids.max()) + 1 if len(annotations.ids) else 1
    image_entries: list[CocoImage] = []
    annotation_entries: list[CocoAnnotation] = []
    for image in image_indices:
        scaling = scaling_of(image)
        image_entry = _image_entry(images, image, scaling.new)
        image_entries.append(image_entry)
        for row in annotations.of_image(image):
            category_id = metadata.thing_ids[annotations.classes[row]]
            entry = _annotation_entry(
                annotations,
                row,
                image_entry,
                category_id,
                with_mask=with_masks,
                scaling=scaling,
                keypoint_offset=keypoint_offset,
            )
            entry["id"] = entry["id"] or unused_id
            annotation_entries.append(entry)
    return {
        "info": {},
        "images": image_entries,
        "annotations": annotation_entries,
        "categories": _categories(metadata, frequencies, with_keypoints=annotations.keypoints is not None),
    }


def _image_entry(images: FlatImages, index: int, size: tuple[int, int]) -> CocoImage:
    height, width = size
    entry: CocoImage = {
        "id": int(images.ids[index]),
        "file_name": images.name(index),
        "height": height,
        "width": width,
    }
    for key, category_ids in images.federated.items():
        entry[key] = category_ids[index]
    return entry


def _annotation_entry(
    annotations: FlatAnnotations,
    row: int,
    image: CocoImage,
    category_id: int,
    *,
    with_mask: bool,
    scaling: ObjectScaling,
    keypoint_offset: float,
) -> CocoAnnotation:
    entry: CocoAnnotation = {
        "id": int(annotations.ids[row]),
        "image_id": image["id"],
        "category_id": category_id,
        "bbox": scaling.boxes(annotations.boxes[row]).tolist(),
        "area": float(scaling.areas(annotations.areas[row])),
        "iscrowd": int(annotations.iscrowd[row]),
    }
    if annotations.ignore[row]:
        entry["ignore"] = 1
    if with_mask:
        height, width = image["height"], image["width"]
        segment = scaling.segment(annotations.segment(row, scaling.old))
        entry["segmentation"] = segment_to_coco(segment, height, width)
    if annotations.keypoints is not None:
        keypoints = scaling.keypoints(annotations.keypoints[row], offset=keypoint_offset)  # (K, 3)
        entry["keypoints"] = keypoints.astype(np.float64).round(3).reshape(-1).tolist()
        entry["num_keypoints"] = int((keypoints[:, 2] > 0).sum())
    if annotations.rotated_boxes is not None:
        entry["rotated_bbox"] = scaling.rotated_boxes(annotations.rotated_boxes[row : row + 1])[0].tolist()
    return entry


def _categories(
    metadata: Metadata, frequencies: Mapping[int, str], *, with_keypoints: bool
) -> list[CocoCategory]:
    categories: list[CocoCategory] = []
    for category_id, name in zip(metadata.thing_ids, metadata.thing_classes):
        category: CocoCategory = {"id": category_id, "name": name}
        if with_keypoints:
            category["keypoints"] = list(metadata.keypoint_names)
        if category_id in frequencies:
            category["frequency"] = frequencies[category_id]
        categories.append(category)
    return categories
