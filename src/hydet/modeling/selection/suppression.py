"""Non-maximum suppression of a batch of upright or rotated boxes, with shapes that do not depend on the data.

N images, C candidates per image, D numbers per box (4, or 5 for rotated boxes), K selected boxes per image at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hydet.layers.dense_ops import nms_padded, nms_rotated_padded
from hydet.structures.box_ops import clip_boxes, clip_rotated_boxes

from .top_k import gather_rows, smaller

__all__: list[str] = []


# N pairs (height, width), or an (N, 2) tensor of them. A compiled program takes the tensor: it serves images of all sizes,
# while pairs of numbers would become constants.
ImageSizes = Sequence[tuple[int, int]] | Tensor


class SelectedBoxes(NamedTuple):
    """Selected boxes of each image by descending score, padded to K per image.

    Attributes:
        boxes: ``(N, K, D)``.
        scores: ``(N, K)``.
        groups: ``(N, K)`` class or level of each box.
        indices: ``(N, K)`` position of each box among the candidates.
        counts: ``(N,)`` number of selected boxes per image; entries beyond it are padding.
    """

    boxes: Tensor
    scores: Tensor
    groups: Tensor
    indices: Tensor
    counts: Tensor


def is_filled(counts: Tensor, size: int) -> Tensor:
    """Return ``(N, size)`` bool: True for the ``(N,)`` first entries of each image, False for padding."""
    return torch.arange(size, device=counts.device) < counts[:, None]


def select_boxes(
    boxes: Tensor, scores: Tensor, groups: Tensor, valid: Tensor, *, iou_threshold: float, max_outputs: int
) -> SelectedBoxes:
    """Suppress overlapping candidates of each image and group, and gather the boxes that remain.

    Args:
        boxes: ``(N, C, D)``, finite where valid.
        scores: ``(N, C)``.
        groups: ``(N, C)`` levels or classes, from 0; boxes of different groups never suppress one another.
        valid: ``(N, C)`` bool; the other candidates are neither selected nor suppress a box.
        iou_threshold: a box is dropped if its IoU with a better box of its image and group is greater.
        max_outputs: number of boxes per image; negative for all.
    """
    # Values of invalid candidates must not reach the IoU, where NaN would spread.
    boxes = torch.where(valid[..., None], boxes, 0.0)
    scores = torch.where(valid, scores, 0.0)
    indices, counts = suppress(boxes, scores, groups, valid, iou_threshold, max_outputs)
    return SelectedBoxes(
        gather_rows(boxes, indices), scores.gather(1, indices), groups.gather(1, indices), indices, counts
    )


def clip_to_images(boxes: Tensor, image_sizes: ImageSizes) -> Tensor:
    """Clip the boxes of each image to it; of rotated boxes, only those within a degree of upright.

    Args:
        boxes: ``(N, C, 4)``, or ``(N, C, 5)`` rotated boxes.
        image_sizes: N pairs (height, width).
    """
    clip = clip_boxes if boxes.shape[2] == 4 else clip_rotated_boxes
    if isinstance(image_sizes, Tensor):
        sizes = image_sizes.to(boxes)
    elif len(set(image_sizes)) == 1:  # plain numbers spare a copy to the device
        return clip(boxes, *image_sizes[0])
    else:
        sizes = boxes.new_tensor(image_sizes)
    height, width = sizes.view(-1, 2, 1).unbind(1)  # (N, 1)
    return clip(boxes, height, width)


def suppress(
    boxes: Tensor, scores: Tensor, groups: Tensor, valid: Tensor, iou_threshold: float, max_outputs: int
) -> tuple[Tensor, Tensor]:
    """Return the indices of the best boxes of each image that no better box of their group overlaps.

    Args:
        boxes: ``(N, C, D)``, finite where valid.
        scores: ``(N, C)``.
        groups: ``(N, C)`` levels or classes, from 0.
        valid: ``(N, C)`` bool; the other candidates are neither selected nor suppress a box.
        iou_threshold: a box is dropped if its IoU with a better box of its group is greater.
        max_outputs: number of boxes per image; negative for all.

    Returns:
        ``(N, K)`` indices by descending score, and ``(N,)`` counts; indices beyond the count are padding.
    """
    limit = boxes.shape[1] if max_outputs < 0 else smaller(max_outputs, boxes.shape[1])
    if boxes.shape[2] == 5:
        return nms_rotated_padded(boxes, scores, iou_threshold, groups=groups, valid=valid, max_outputs=limit)
    return nms_padded(boxes, scores, iou_threshold, groups=groups, valid=valid, max_outputs=limit)
