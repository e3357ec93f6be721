"""Conversion of model results to COCO's results format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NotRequired, TypedDict

import numpy as np
import torch
from faster_coco_eval import mask as rle
from torch import Tensor

from hydet.structures import BitMasks, Instances, Keypoints, ModelInput, ModelOutput, ROIMasks

if TYPE_CHECKING:
    from hydet.data import Metadata

__all__ = [
    "TASKS",
    "CocoResult",
    "RunLengths",
    "check_fields",
    "get_instances",
    "mask_run_lengths",
    "results_to_coco_json",
    "run_lengths",
]

TASKS = {"bbox": "box", "segm": "mask", "keypoints": "keypoints"}  # COCO's name -> name in metrics
FIELDS = {"bbox": "pred_boxes", "segm": "pred_masks", "keypoints": "pred_keypoints"}

MASKS_PER_STEP = 32  # masks that are copied to the CPU at a time
# Pixels of the masks that are pasted and encoded at a time; also bytes, since a mask has one per pixel.
PIXELS_PER_STEP = 1 << 26


class RunLengths(TypedDict):
    """A mask as COCO's compressed run-length code.

    Keys:
        size: [height, width].
        counts: run lengths as text.
    """

    size: list[int]
    counts: str


class CocoResult(TypedDict):
    """A detection in COCO's results format.

    Keys:
        image_id: id of the image, or its file name if it has no id.
        category_id: category of the detection.
        bbox: (x, y, w, h) in pixels, or (cx, cy, w, h, degrees) for rotated boxes.
        score: score of the detection.
        segmentation: mask of the detection.
        keypoints: x, y and score of each keypoint, concatenated.
        track_id: number of the object in a video.
    """

    image_id: int | str | None
    category_id: int
    bbox: list[float]
    score: float
    segmentation: NotRequired[RunLengths]
    keypoints: NotRequired[list[float]]
    track_id: NotRequired[int]


def results_to_coco_json(
    inputs: Sequence[ModelInput],
    outputs: Sequence[ModelOutput],
    metadata: Metadata,
    *,
    keypoint_offset: float = 0.0,
) -> list[CocoResult]:
    """Convert model outputs to COCO's results format, for ``json.dump`` and ``COCO.loadRes``.

    Args:
        inputs: model inputs; ``image_id`` identifies the image, or ``file_name`` if there is no id.
        outputs: results for the inputs: ``{"instances": Instances}`` in the frame of the original image, with
            ``pred_boxes``, ``scores``, ``pred_classes`` and, if the model predicts them, ``pred_masks`` (n, H, W) or
            ``ROIMasks``, and ``pred_keypoints`` (n, K, 3).
        metadata: ``hydet.data.Metadata``, whose ``thing_ids`` convert classes back to category ids.
        keypoint_offset: subtracted from x and y of keypoints, in pixels.

    Raises:
        ValueError: if lengths differ, a result has no instances, or a class is not in the metadata.
    """
    if len(inputs) != len(outputs):
        raise ValueError(f"{len(inputs)} inputs, but {len(outputs)} outputs")
    results: list[CocoResult] = []
    for entry, output in zip(inputs, outputs, strict=True):
        results.extend(_image_results(entry, output, tuple(metadata.thing_ids), keypoint_offset))
    return results


def get_instances(entry: ModelInput, output: ModelOutput, num_classes: int) -> Instances:
    """Return the ``instances`` of a result.

    Raises:
        ValueError: if there are none, or a class is outside 0 to ``num_classes - 1``.
    """
    image_id = entry.get("image_id", entry.get("file_name"))
    if "instances" not in output:
        raise ValueError(f"image {image_id}: the model returned {sorted(output)}, expected 'instances'")
    instances = output["instances"]
    classes = instances.pred_classes
    invalid = classes[(classes < 0) | (classes >= num_classes)].tolist()
    if invalid:
        raise ValueError(
            f"image {image_id}: the model predicted class {invalid[0]}, but the dataset has classes 0 to "
            f"{num_classes - 1}"
        )
    return instances


def check_fields(instances: Instances, iou_types: Sequence[str]) -> None:
    """Check that the instances have the predictions of each of COCO's ``iou_types``.

    Raises:
        ValueError: if a field is missing.
    """
    for name in iou_types:
        if not instances.has(FIELDS[name]):
            raise ValueError(
                f"iou_types has {name!r}, but the model predicts no {FIELDS[name]} "
                f"(it predicts {sorted(instances.get_fields())})"
            )


def _image_results(
    entry: ModelInput, output: ModelOutput, thing_ids: tuple[int, ...], keypoint_offset: float
) -> list[CocoResult]:
    image_id = entry.get("image_id", entry.get("file_name"))
    instances = get_instances(entry, output, len(thing_ids))
    classes = instances.pred_classes.tolist()
    boxes = _to_coco_boxes(instances.pred_boxes.tensor)
    results: list[CocoResult] = [
        {"image_id": image_id, "category_id": int(thing_ids[c]), "bbox": box, "score": score}
        for c, box, score in zip(classes, boxes, instances.scores.double().tolist(), strict=True)
    ]
    if instances.has("pred_masks"):
        for result, code in zip(results, mask_run_lengths(instances), strict=True):
            result["segmentation"] = code
    if instances.has("pred_keypoints"):
        keypoints = _to_coco_keypoints(instances.pred_keypoints, keypoint_offset)
        for result, points in zip(results, keypoints, strict=True):
            result["keypoints"] = points
    if instances.has("track_ids"):
        for result, track_id in zip(results, instances.track_ids.tolist(), strict=True):
            if track_id >= 0:
                result["track_id"] = track_id
    return results


def _to_coco_boxes(boxes: Tensor) -> list[list[float]]:
    boxes = boxes.detach().double().cpu()
    if boxes.shape[-1] == 4:
        boxes = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1)
    rows: list[list[float]] = boxes.tolist()
    return rows


def mask_run_lengths(instances: Instances) -> list[RunLengths]:
    """Encode ``pred_masks``, which are ``(n, H, W)``, or ``ROIMasks`` relative to ``pred_boxes``; see ``run_lengths``.

    ``ROIMasks`` are pasted a few at a time, so memory does not grow with the number of masks.
    """
    masks = instances.pred_masks
    if not isinstance(masks, ROIMasks):
        return run_lengths(masks)
    height, width = instances.image_size
    size = max(1, PIXELS_PER_STEP // max(1, height * width))
    codes: list[RunLengths] = []
    for start in range(0, len(masks), size):
        boxes = instances.pred_boxes.tensor[start : start + size]
        codes += run_lengths(masks[start : start + size].to_bitmasks(boxes, height, width))
    return codes


def run_lengths(masks: Tensor | BitMasks) -> list[RunLengths]:
    """Encode ``(n, H, W)`` masks as COCO's compressed run-length codes; probabilities above 0.5 belong to a mask.

    Raises:
        ValueError: if the masks have another number of dimensions.
    """
    tensor = masks if isinstance(masks, Tensor) else masks.tensor
    if tensor.ndim != 3:
        raise ValueError(
            f"pred_masks has shape {tuple(tensor.shape)}, expected (n, H, W): masks pasted into the image"
        )
    codes: list[RunLengths] = []
    for part in tensor.detach().split(
        max(1, min(MASKS_PER_STEP, PIXELS_PER_STEP // max(1, tensor.shape[1] * tensor.shape[2])))
    ):
        if part.shape[0] == 0:
            break
        binary = (part > 0.5 if part.is_floating_point() else part).byte().cpu()
        for code in rle.encode(np.asfortranarray(binary.permute(1, 2, 0))):
            counts = code["counts"]
            text = counts.decode("ascii") if isinstance(counts, bytes) else counts
            codes.append({"size": [int(side) for side in code["size"]], "counts": text})
    return codes


def _to_coco_keypoints(keypoints: Tensor | Keypoints, offset: float) -> list[list[float]]:
    tensor = keypoints if isinstance(keypoints, Tensor) else keypoints.tensor
    points = tensor.detach().double().cpu().clone()
    points[..., :2] -= offset
    rows: list[list[float]] = points.flatten(1).tolist()
    return rows
