"""Conversion of mmdet's outputs to hydet: scalar losses, ``Instances``, label maps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hydet.structures import BitMasks, Boxes, Instances, Losses, SegmentInfo

if TYPE_CHECKING:
    from mmengine.structures import InstanceData

__all__ = [
    "instances_from_mmdet",
    "panoptic_from_mmdet",
    "proposals_from_mmdet",
    "scalar_losses",
    "sem_seg_from_mmdet",
]

INSTANCE_OFFSET = 1000  # a pixel of mmdet's panoptic map is: class + INSTANCE_OFFSET * index of the instance


def scalar_losses(outputs: Mapping[str, object]) -> Losses:
    """Reduce the losses of an mmdet detector to scalars, in the way of mmdet's own training.

    Losses are the entries with ``loss`` in their names; the others, such as ``acc``, are metrics and dropped. Each
    tensor is averaged, and a list, such as one tensor per level, is summed.

    Args:
        outputs: what the detector returns in training.

    Returns:
        Scalar losses by mmdet's names.

    Raises:
        TypeError: if a loss is neither a tensor nor a list of tensors.
    """
    losses = {}
    for name, value in outputs.items():
        if "loss" not in name:
            continue
        parts = value if isinstance(value, list | tuple) else [value]
        tensors = [part for part in parts if isinstance(part, Tensor)]
        if len(tensors) != len(parts):
            raise TypeError(
                f"mmdet: expected {name!r} as a tensor or a list of tensors, got {type(value).__name__}"
            )
        if tensors:
            losses[name] = torch.stack([tensor.mean() for tensor in tensors]).sum()
    return losses


def instances_from_mmdet(
    predictions: InstanceData, output_size: tuple[int, int], *, has_boxes: bool = True
) -> Instances:
    """Convert the detections of one image.

    Args:
        predictions: mmdet's ``pred_instances`` in the output frame, with ``scores``, ``labels``, ``bboxes`` and
            optionally ``masks``.
        output_size: (height, width) of the output.
        has_boxes: True if the model predicts boxes; otherwise boxes are the bounding boxes of the masks.

    Returns:
        ``pred_boxes`` clipped to the output, ``scores``, ``pred_classes`` and, if there are masks, ``pred_masks``,
        ``(N, H, W)`` bool, in mmdet's order.
    """
    result = Instances(output_size, scores=predictions.scores.float(), pred_classes=predictions.labels.long())
    device = predictions.scores.device
    if "masks" in predictions:
        result.pred_masks = torch.as_tensor(predictions.masks, dtype=torch.bool, device=device)
    if has_boxes or "masks" not in predictions:
        boxes = Boxes(getattr(predictions.bboxes, "tensor", predictions.bboxes))
        boxes.clip(output_size)
    else:
        boxes = BitMasks(result.pred_masks).get_bounding_boxes()
    result.pred_boxes = boxes
    return result


def proposals_from_mmdet(predictions: InstanceData, output_size: tuple[int, int]) -> Instances:
    """Convert the proposals of one image.

    Args:
        predictions: mmdet's ``pred_instances`` in the output frame, with ``scores`` and ``bboxes``.
        output_size: (height, width) of the output.

    Returns:
        ``proposal_boxes`` clipped to the output, and ``objectness_logits``.
    """
    boxes = Boxes(getattr(predictions.bboxes, "tensor", predictions.bboxes))
    boxes.clip(output_size)
    logits = torch.logit(predictions.scores.float(), eps=1e-7)
    return Instances(output_size, proposal_boxes=boxes, objectness_logits=logits)


def panoptic_from_mmdet(
    labels: Tensor, *, num_things: int, num_stuff: int
) -> tuple[Tensor, list[SegmentInfo]]:
    """Convert a panoptic map to segments.

    Args:
        labels: ``(1, H, W)`` or ``(H, W)`` integers of mmdet, ``class + 1000 * index of the instance``. Pixels with a
            class beyond things and stuff belong to no segment.
        num_things: number of thing classes, which come first.
        num_stuff: number of stuff classes.

    Returns:
        ``(H, W)`` int32 segment ids, 0 for no segment; and the segments with ``id`` (from 1), ``isthing``,
        ``category_id`` (things from 0; stuff from 1, as in hydet's semantic labels) and ``area`` in pixels. Things
        come first, in mmdet's order, then stuff. mmdet returns no scores of segments.
    """
    labels = labels.squeeze(0) if labels.ndim == 3 else labels
    values, index, areas = labels.unique(return_inverse=True, return_counts=True)
    classes = (values % INSTANCE_OFFSET).tolist()
    # The sort is stable: things first, then stuff, each by value.
    order = sorted(range(len(classes)), key=lambda i: classes[i] >= num_things)
    ids = torch.zeros(len(classes), dtype=torch.int32)
    segments: list[SegmentInfo] = []
    for i in order:
        if classes[i] >= num_things + num_stuff:
            continue
        isthing = classes[i] < num_things
        ids[i] = len(segments) + 1
        segments.append(
            {
                "id": len(segments) + 1,
                "isthing": isthing,
                "category_id": classes[i] if isthing else classes[i] - num_things + 1,
                "area": int(areas[i]),
            }
        )
    return ids.to(labels.device)[index], segments


def sem_seg_from_mmdet(prediction: Tensor) -> Tensor:
    """Convert a semantic prediction to scores.

    Args:
        prediction: ``(K, H, W)`` scores, or ``(1, H, W)`` or ``(H, W)`` labels.

    Returns:
        ``(K, H, W)`` scores: the given ones, or the one-hot encoding of the labels.
    """
    if prediction.is_floating_point() and prediction.ndim == 3:
        return prediction
    labels = (prediction.squeeze(0) if prediction.ndim == 3 else prediction).long()
    count = int(labels.max()) + 1 if labels.numel() else 1
    return torch.nn.functional.one_hot(labels, count).permute(2, 0, 1).float()  # (H, W) -> (K, H, W)
