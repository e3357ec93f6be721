"""From mmdet's outputs to hydet's: scalar losses, ``Instances``, maps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hydet.structures import BitMasks, Boxes, Instances

__all__ = [
    "instances_from_mmdet",
    "panoptic_from_mmdet",
    "proposals_from_mmdet",
    "scalar_losses",
    "sem_seg_from_mmdet",
]

INSTANCE_OFFSET = 1000  # mmdet's panoptic maps hold class + this x number of the instance


def scalar_losses(outputs: Mapping[str, Any]) -> dict[str, Tensor]:
    """The losses among what an mmdet detector returns in training, one scalar each.

    As in mmdet, those are the entries with ``loss`` in their names (others, such as ``acc``, are metrics, and left
    out); the mean is taken of each tensor, and lists, such as one tensor a level, are summed.

    Raises:
        TypeError: if a loss is neither a tensor nor a list of tensors.
    """
    losses = {}
    for name, value in outputs.items():
        if "loss" not in name:
            continue
        parts = value if isinstance(value, list | tuple) else [value]
        if not all(isinstance(part, Tensor) for part in parts):
            raise TypeError(f"mmdet gave {name!r} as {type(value).__name__}, not as tensors")
        if parts:
            losses[name] = torch.stack([part.mean() for part in parts]).sum()
    return losses


def instances_from_mmdet(found: Any, output_size: tuple[int, int], *, has_boxes: bool = True) -> Instances:
    """Detections of one image.

    Args:
        found: mmdet's ``pred_instances``, rescaled to the output: ``scores``, ``labels``, ``bboxes`` and perhaps
            ``masks``.
        output_size: (height, width) of the output.
        has_boxes: whether the model predicts boxes; otherwise those around the masks are given.

    Returns:
        ``pred_boxes`` clipped to the output, ``scores``, ``pred_classes`` and, where there are masks, ``pred_masks``,
        ``(N, H, W)`` bool, in mmdet's order.
    """
    result = Instances(output_size, scores=found.scores.float(), pred_classes=found.labels.long())
    device = found.scores.device
    if "masks" in found:
        result.pred_masks = torch.as_tensor(found.masks, dtype=torch.bool, device=device)
    if has_boxes or "masks" not in found:
        boxes = Boxes(getattr(found.bboxes, "tensor", found.bboxes))
        boxes.clip(output_size)
    else:
        boxes = BitMasks(result.pred_masks).get_bounding_boxes()
    result.pred_boxes = boxes
    return result


def proposals_from_mmdet(found: Any, output_size: tuple[int, int]) -> Instances:
    """Proposals of one image, from what :func:`instances_from_mmdet` takes: ``proposal_boxes``, ``objectness_logits``."""
    boxes = Boxes(getattr(found.bboxes, "tensor", found.bboxes))
    boxes.clip(output_size)
    logits = torch.logit(found.scores.float(), eps=1e-7)
    return Instances(output_size, proposal_boxes=boxes, objectness_logits=logits)


def panoptic_from_mmdet(
    labels: Tensor, *, num_things: int, num_stuff: int
) -> tuple[Tensor, list[dict[str, Any]]]:
    """Segments and what they are.

    Args:
        labels: ``(1, H, W)`` or ``(H, W)`` integers of mmdet, ``class + 1000 * number of the instance``; a class that
            does not exist stands for nothing.
        num_things: number of thing classes, which come first.
        num_stuff: number of stuff classes.

    Returns:
        ``(H, W)`` int32 segment ids, 0 where there is none, and a list of ``id`` (from 1), ``isthing``,
        ``category_id`` (things from 0; stuff from 1, as in hydet's semantic labels) and ``area`` in pixels: things
        in mmdet's order, then stuff. mmdet does not tell the scores of its segments.
    """
    labels = labels.squeeze(0) if labels.ndim == 3 else labels
    values, index, areas = labels.unique(return_inverse=True, return_counts=True)
    classes = (values % INSTANCE_OFFSET).tolist()
    order = sorted(
        range(len(classes)), key=lambda i: classes[i] >= num_things
    )  # stable: by value within each
    ids = torch.zeros(len(classes), dtype=torch.int32)
    segments: list[dict[str, Any]] = []
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
    """``(K, H, W)`` scores as they are; ``(1, H, W)`` or ``(H, W)`` labels become zeros and ones for each label."""
    if prediction.is_floating_point() and prediction.ndim == 3:
        return prediction
    labels = (prediction.squeeze(0) if prediction.ndim == 3 else prediction).long()
    count = int(labels.max()) + 1 if labels.numel() else 1
    return torch.nn.functional.one_hot(labels, count).permute(2, 0, 1).float()  # (H, W) -> (K, H, W)
