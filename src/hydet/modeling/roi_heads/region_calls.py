"""Calls of the parts of ROI heads, for losses, for predictions, and on padded batches."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

from torch import Tensor

from hydet.modeling.padded import PaddedDetections
from hydet.structures import Instances, Losses

from .interfaces import BoxPredictor, Features, PaddedBoxPredictor, RegionHead
from .keypoint_head import BaseKeypointRCNNHead
from .mask_head import BaseMaskRCNNHead

__all__ = [
    "as_padded",
    "compute_region_losses",
    "predict_keypoint_logits",
    "predict_mask_logits",
    "predict_regions",
]


def compute_region_losses(head: RegionHead, x: Tensor | Features, proposals: Sequence[Instances]) -> Losses:
    """Return the losses of a head for sampled proposals.

    Args:
        head: a mask or keypoint head.
        x: input of the head; see ``RegionHead``.
        proposals: per image, with ``proposal_boxes`` and ground truth.

    Raises:
        TypeError: if the head returns anything but losses.
    """
    output = head(x, proposals)
    if not isinstance(output, dict):
        raise TypeError(
            f"a head must return losses for proposals with ground truth, got {type(output).__name__}"
        )
    return output


def predict_regions(
    head: RegionHead, x: Tensor | Features, detections: Sequence[Instances]
) -> list[Instances]:
    """Return the predictions of a head for detections.

    Detections that a caller provides may still carry ground truth, as after matching them with objects. A head must
    not take them for training examples, so it does not receive those fields; the results have them again.

    Args:
        head: a mask or keypoint head.
        x: input of the head; see ``RegionHead``.
        detections: per image, with ``pred_boxes`` and ``pred_classes``. Not modified.

    Raises:
        TypeError: if the head returns losses.
    """
    output = head(x, [_without_ground_truth(detections_i) for detections_i in detections])
    if isinstance(output, dict):
        raise TypeError(f"a head must return Instances for detections, got losses {sorted(output)}")
    results = [copy(output_i) for output_i in output]
    for detections_i, result in zip(detections, results, strict=True):
        for name, value in detections_i.get_fields().items():
            if name.startswith("gt_") and not result.has(name):
                result.set(name, value)
    return results


def _without_ground_truth(detections: Instances) -> Instances:
    fields = detections.get_fields()
    return Instances(
        detections.image_size, **{name: fields[name] for name in fields if not name.startswith("gt_")}
    )


def as_padded(predictor: BoxPredictor) -> PaddedBoxPredictor:
    """Return the box predictor, if it works on padded batches.

    Raises:
        TypeError: if it does not.
    """
    if not isinstance(predictor, PaddedBoxPredictor):
        raise TypeError(
            f"{type(predictor).__name__} has no tensor core: it needs the methods of PaddedBoxPredictor; FastRCNNOutputLayers "
            "has them"
        )
    return predictor


def predict_mask_logits(head: RegionHead, x: Tensor, detections: PaddedDetections) -> Tensor:
    """Return the ``(N, K, M, M)`` mask logits of the detected classes.

    Args:
        head: a mask head.
        x: ``(N * K, C, H, W)`` features.
        detections: N images with K detections each, padding included.

    Raises:
        TypeError: if the head is not a ``BaseMaskRCNNHead``.
    """
    if not isinstance(head, BaseMaskRCNNHead):
        raise TypeError(f"{type(head).__name__} has no tensor core: derive it from BaseMaskRCNNHead")
    logits = head.predict_logits(x, detections.classes.flatten())
    by_image: Tensor = logits.unflatten(0, detections.scores.shape)
    return by_image


def predict_keypoint_logits(head: RegionHead, x: Tensor, detections: PaddedDetections) -> Tensor:
    """Return the ``(N, K, P, S, S)`` heatmap logits of detections; see ``predict_mask_logits``.

    Raises:
        TypeError: if the head is not a ``BaseKeypointRCNNHead``.
    """
    if not isinstance(head, BaseKeypointRCNNHead):
        raise TypeError(f"{type(head).__name__} has no tensor core: derive it from BaseKeypointRCNNHead")
    by_image: Tensor = head.layers(x).unflatten(0, detections.scores.shape)
    return by_image
