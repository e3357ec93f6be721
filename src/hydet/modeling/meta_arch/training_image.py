"""Images for ``visualize_training``, drawn by ``hydet.visualization``.

``hydet.visualization`` lies above this package, so it is imported when an image is drawn. Models never call these
functions themselves: ``hydet.engine.callbacks.TrainingImages`` draws while a model trains.
"""

from __future__ import annotations

from importlib import import_module

from torch import Tensor

from hydet.structures import Instances, ModelInput

__all__: list[str] = []

MAX_BOXES = 20


def draw_boxes(entry: ModelInput, boxes: Tensor, *, input_format: str | None) -> Tensor:
    """Draw the first boxes of ``boxes`` beside the ground truth; returns a ``(3, H, 2 * W)`` uint8 image."""
    image: Tensor = import_module("hydet.visualization").draw_boxes_beside_ground_truth(
        entry["image"], entry["instances"].gt_boxes.tensor, boxes[:MAX_BOXES], bgr=input_format == "BGR"
    )
    return image


def draw_proposals(entry: ModelInput, proposals: Instances, *, input_format: str | None) -> Tensor:
    """Draw the proposals with the highest ``objectness_logits``, or the first ones if they have no logits."""
    boxes = proposals.proposal_boxes.tensor
    if proposals.has("objectness_logits"):
        boxes = boxes[proposals.objectness_logits.argsort(descending=True)]
    return draw_boxes(entry, boxes, input_format=input_format)


def draw_labels(entry: ModelInput, logits: Tensor, *, input_format: str | None) -> Tensor:
    """Draw the labels of ``(K, H, W)`` logits of the padded input beside the true labels."""
    gt_labels = entry["sem_seg"]
    labels = logits[:, : gt_labels.shape[0], : gt_labels.shape[1]].argmax(dim=0)
    image: Tensor = import_module("hydet.visualization").draw_labels_beside_ground_truth(
        entry["image"], gt_labels, labels, logits.shape[0], bgr=input_format == "BGR"
    )
    return image
