"""Results of a model in the format that COCO tools read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from faster_coco_eval import mask as rle
from torch import Tensor

__all__ = ["TASKS", "check_fields", "instances_of", "results_to_coco_json", "run_lengths"]

TASKS = {"bbox": "box", "segm": "mask", "keypoints": "keypoints"}  # COCO's name -> ours
FIELDS = {"bbox": "pred_boxes", "segm": "pred_masks", "keypoints": "pred_keypoints"}

MASKS_AT_ONCE = 32


def results_to_coco_json(
    inputs: Sequence[Mapping[str, Any]],
    outputs: Sequence[Mapping[str, Any]],
    metadata: Any,
    *,
    keypoint_offset: float = 0.0,
) -> list[dict[str, Any]]:
    """One mapping a detected object, ready for ``json.dump`` and for ``COCO.loadRes``.

    Args:
        inputs: what the model got; ``image_id`` names the image, ``file_name`` where there is none.
        outputs: what it gave, as many: ``{"instances": Instances}`` in the frame of the original image, with
            ``pred_boxes``, ``scores``, ``pred_classes`` and, where the model has them, ``pred_masks``
            (n, H, W) and ``pred_keypoints`` (n, K, 3).
        metadata: ``hydet.data.Metadata``; its ``thing_ids`` turn classes back into category ids.
        keypoint_offset: subtracted from x and y of keypoints.

    Returns:
        ``image_id``, ``category_id``, ``bbox`` as (x, y, w, h) in pixels, or (cx, cy, w, h, degrees) for rotated
        boxes, ``score``; with masks ``segmentation`` (compressed RLE), with keypoints ``keypoints`` (x, y, score
        one after the other).

    Raises:
        ValueError: if lengths differ, an output has no instances, or a class is none of the metadata's.
    """
    if len(inputs) != len(outputs):
        raise ValueError(f"{len(inputs)} inputs, but {len(outputs)} outputs")
    results: list[dict[str, Any]] = []
    for entry, output in zip(inputs, outputs, strict=True):
        results.extend(_image_results(entry, output, tuple(metadata.thing_ids), keypoint_offset))
    return results


def instances_of(entry: Mapping[str, Any], output: Mapping[str, Any], num_classes: int) -> Any:
    """The ``instances`` of an output.

    Raises:
        ValueError: if there are none, or a class is not in 0 ... ``num_classes`` - 1.
    """
    image_id = entry.get("image_id", entry.get("file_name"))
    if "instances" not in output:
        raise ValueError(f"image {image_id}: the model gave {sorted(output)}, expected 'instances'")
    found = output["instances"]
    wrong = found.pred_classes[(found.pred_classes < 0) | (found.pred_classes >= num_classes)].tolist()
    if wrong:
        raise ValueError(
            f"image {image_id}: the model found class {wrong[0]}, the dataset has classes 0 to {num_classes - 1}"
        )
    return found


def check_fields(found: Any, iou_types: Sequence[str]) -> None:
    """Raise ValueError unless the instances have what each of COCO's ``iou_types`` measures."""
    for name in iou_types:
        if not found.has(FIELDS[name]):
            raise ValueError(
                f"iou_types asks for {name!r}, but the model gives no {FIELDS[name]} "
                f"(it gives {sorted(found.get_fields())})"
            )


def _image_results(
    entry: Mapping[str, Any], output: Mapping[str, Any], thing_ids: tuple[int, ...], keypoint_offset: float
) -> list[dict[str, Any]]:
    image_id = entry.get("image_id", entry.get("file_name"))
    found = instances_of(entry, output, len(thing_ids))
    classes = found.pred_classes.tolist()
    boxes = _written_boxes(found.pred_boxes.tensor)
    results = [
        {"image_id": image_id, "category_id": int(thing_ids[c]), "bbox": box, "score": score}
        for c, box, score in zip(classes, boxes, found.scores.double().tolist(), strict=True)
    ]
    if found.has("pred_masks"):
        for result, code in zip(results, run_lengths(found.pred_masks), strict=True):
            result["segmentation"] = code
    if found.has("pred_keypoints"):
        for result, points in zip(
            results, _written_keypoints(found.pred_keypoints, keypoint_offset), strict=True
        ):
            result["keypoints"] = points
    return results


def _written_boxes(boxes: Tensor) -> list[list[float]]:
    boxes = boxes.detach().double().cpu()
    if boxes.shape[-1] == 4:
        boxes = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1)
    return boxes.tolist()


def run_lengths(masks: Any) -> list[dict[str, Any]]:
    """Compressed run-length codes of ``(n, H, W)`` masks; probabilities count from above 0.5.

    Raises:
        ValueError: if the shape is another.
    """
    masks = getattr(masks, "tensor", masks)
    if masks.ndim != 3:
        raise ValueError(
            f"pred_masks has shape {tuple(masks.shape)}, expected (n, H, W): masks pasted into the image"
        )
    codes: list[dict[str, Any]] = []
    for part in masks.detach().split(MASKS_AT_ONCE):
        if part.shape[0] == 0:
            break
        array = np.asfortranarray(
            (part > 0.5 if part.is_floating_point() else part).byte().cpu().permute(1, 2, 0)
        )
        codes.extend(rle.encode(array))
    for code in codes:
        if isinstance(code["counts"], bytes):
            code["counts"] = code["counts"].decode("ascii")
        code["size"] = [int(side) for side in code["size"]]
    return codes


def _written_keypoints(keypoints: Any, offset: float) -> list[list[float]]:
    points = getattr(keypoints, "tensor", keypoints).detach().double().cpu().clone()
    points[..., :2] -= offset
    return points.flatten(1).tolist()
