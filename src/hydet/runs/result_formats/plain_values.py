"""Results as numbers, strings, lists and dicts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hydet.evaluation.coco_results import mask_run_lengths, run_lengths

if TYPE_CHECKING:
    from hydet.runs.result import Result

__all__ = ["to_dict"]


def to_dict(result: Result) -> dict[str, Any]:
    """Return a result as values for JSON.

    Returns:
        ``name``, ``index``, ``height`` and ``width`` of the image, and:

        - ``objects``: one dict per object with ``class_id``, ``class_name``, ``score``, ``box`` and, as the model predicts
          them, ``mask`` and ``keypoints`` (a list of [x, y, score]); ``track_id`` if objects are tracked;
        - ``segments``, for panoptic models: one dict per segment with ``class_name``, ``mask`` and the keys of
          :class:`hydet.structures.SegmentInfo`;
        - ``labels``, for semantic models: one dict per label in the image with ``label_id``, ``label_name`` and ``mask``.

        Masks are COCO's run-length codes.
    """
    values: dict[str, Any] = {
        "name": result.name,
        "index": result.index,
        "height": result.height,
        "width": result.width,
        "objects": _objects(result),
    }
    if result.panoptic is not None:
        values["segments"] = _segments(result, *result.panoptic)
    elif (labels := result.semantic) is not None:
        values["labels"] = _labels(labels, result.metadata.stuff_classes)
    return values


def _objects(result: Result) -> list[dict[str, Any]]:
    columns = zip(
        result.class_ids.tolist(),
        result.class_names,
        result.scores.tolist(),
        result.boxes.tolist(),
        strict=True,
    )
    objects: list[dict[str, Any]] = [
        {"class_id": class_id, "class_name": name, "score": score, "box": box}
        for class_id, name, score, box in columns
    ]
    if result.instances.has("pred_masks"):
        for entry, mask in zip(objects, mask_run_lengths(result.instances), strict=True):
            entry["mask"] = mask
    if result.keypoints is not None:
        for entry, points in zip(objects, result.keypoints.tolist(), strict=True):
            entry["keypoints"] = points
    if result.track_ids is not None:
        for entry, track_id in zip(objects, result.track_ids.tolist(), strict=True):
            entry["track_id"] = track_id
    return objects


def _segments(result: Result, panoptic_map: Tensor, segments: Any) -> list[dict[str, Any]]:
    metadata = result.metadata
    described = []
    for segment in segments:
        names = metadata.thing_classes if segment["isthing"] else metadata.stuff_classes
        (mask,) = run_lengths(panoptic_map[None] == segment["id"])
        described.append({**segment, "class_name": names[segment["category_id"]], "mask": mask})
    return described


def _labels(labels: Tensor, names: tuple[str, ...]) -> list[dict[str, Any]]:
    described = []
    for label in torch.unique(labels).tolist():
        (mask,) = run_lengths(labels[None] == label)
        described.append({"label_id": label, "label_name": names[label], "mask": mask})
    return described
