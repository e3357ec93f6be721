"""Boxes and results of a batch as tensors, padded to a common number per image.

N images, R regions or K detections per image, D numbers per box (4, or 5 for rotated boxes). No shape depends on the
data, so that functions on these tuples compile to one graph, export, and run in CUDA graphs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hydet.modeling.selection.suppression import SelectedBoxes, is_filled
from hydet.structures import Boxes, Instances, RotatedBoxes, heatmaps_to_keypoints
from hydet.structures.precision import at_least_float32

__all__ = ["PaddedDetections", "PaddedRegions", "PaddedResults", "RegionLogits"]


class PaddedRegions(NamedTuple):
    """Regions of N images.

    Attributes:
        boxes: ``(N, R, D)``; zeros behind the last region of an image.
        counts: ``(N,)`` int64 number of regions per image.
    """

    boxes: Tensor
    counts: Tensor


class PaddedDetections(NamedTuple):
    """Detections of N images by descending score; entries behind the last one are zeros.

    Attributes:
        boxes: ``(N, K, D)`` in pixels of the network input.
        scores: ``(N, K)``.
        classes: ``(N, K)`` int64.
        counts: ``(N,)`` int64 number of detections per image.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    counts: Tensor


class RegionLogits(NamedTuple):
    """Predictions for the detections of N images, K per image; None without such a head.

    Attributes:
        masks: ``(N, K, M, M)`` logits of the masks of the detected classes.
        keypoints: ``(N, K, P, S, S)`` logits of the heatmaps of P keypoints.
    """

    masks: Tensor | None = None
    keypoints: Tensor | None = None


class PaddedResults(NamedTuple):
    """Results of a whole model for N images; what the model does not predict is None.

    Attributes:
        boxes: ``(N, K, D)`` in pixels of the network input. Dense detectors do not clip them to the image.
        scores: ``(N, K)``; objectness logits of proposals.
        classes: ``(N, K)`` int64; None for proposals.
        counts: ``(N,)`` int64 number of boxes per image; entries behind them are zeros.
        mask_logits: ``(N, K, M, M)``, relative to the boxes, of the predicted classes.
        keypoint_logits: ``(N, K, P, S, S)`` heatmaps of P keypoints, relative to the boxes.
        semantic_logits: ``(N, C, H, W)`` of the padded input.
    """

    boxes: Tensor | None = None
    scores: Tensor | None = None
    classes: Tensor | None = None
    counts: Tensor | None = None
    mask_logits: Tensor | None = None
    keypoint_logits: Tensor | None = None
    semantic_logits: Tensor | None = None


def to_regions(selected: SelectedBoxes) -> PaddedRegions:
    """Return the selected boxes, with zeros for padding."""
    filled = is_filled(selected.counts, selected.boxes.shape[1])
    return PaddedRegions(torch.where(filled[..., None], selected.boxes, 0.0), selected.counts)


def to_detections(selected: SelectedBoxes) -> PaddedDetections:
    """Return the selected boxes, scores and classes, with zeros for padding."""
    filled = is_filled(selected.counts, selected.boxes.shape[1])
    return PaddedDetections(
        torch.where(filled[..., None], selected.boxes, 0.0),
        torch.where(filled, selected.scores, 0.0),
        torch.where(filled, selected.groups, 0),
        selected.counts,
    )


def to_rois(boxes: Tensor) -> Tensor:
    """Return the ``(N, R, D)`` boxes of N images as ``(N * R, 1 + D)``, the index of the image first."""
    image = torch.arange(boxes.shape[0], device=boxes.device, dtype=boxes.dtype)
    return torch.cat([image[:, None, None].expand(-1, boxes.shape[1], 1), boxes], dim=2).flatten(0, 1)


def unpad(values: Tensor, counts: Sequence[int]) -> list[Tensor]:
    """Split ``(N, K, ...)`` into the entries of each image."""
    return [values[i, :count] for i, count in enumerate(counts)]


def results_to_instances(results: PaddedResults, image_sizes: Sequence[tuple[int, int]]) -> list[Instances]:
    """Convert boxes with their masks and keypoints; waits for the device once, for the counts.

    Args:
        results: of N images, with boxes.
        image_sizes: N pairs (height, width), before padding.

    Returns:
        Per image, ``Instances`` with ``pred_boxes``, ``scores`` and ``pred_classes``, and with ``pred_masks``,
        ``pred_keypoints`` and ``pred_keypoint_heatmaps`` as predicted; without classes, ``Instances`` with
        ``proposal_boxes`` and ``objectness_logits``.

    Raises:
        ValueError: if there are no boxes.
    """
    if results.boxes is None or results.scores is None or results.counts is None:
        raise ValueError("these results have no boxes")
    counts = results.counts.tolist()
    container = Boxes if results.boxes.shape[2] == 4 else RotatedBoxes
    is_proposal = results.classes is None
    converted = [
        Instances(size, **{"proposal_boxes" if is_proposal else "pred_boxes": container(boxes)})
        for size, boxes in zip(image_sizes, unpad(results.boxes, counts), strict=True)
    ]
    fields: dict[str, Tensor | None] = {
        "objectness_logits" if is_proposal else "scores": results.scores,
        "pred_classes": results.classes,
        "pred_masks": None
        if results.mask_logits is None
        else at_least_float32(results.mask_logits).sigmoid()[:, :, None],
        "pred_keypoint_heatmaps": None
        if results.keypoint_logits is None
        else at_least_float32(results.keypoint_logits),
    }
    for name, values in fields.items():
        if values is not None:
            for instances, rows in zip(converted, unpad(values, counts), strict=True):
                instances.set(name, rows)
    if results.keypoint_logits is not None:
        for instances in converted:
            decoded = heatmaps_to_keypoints(instances.pred_keypoint_heatmaps, instances.pred_boxes.tensor)
            instances.pred_keypoints = decoded[:, :, [0, 1, 3]]  # (x, y, logit, score) -> (x, y, score)
    return converted
