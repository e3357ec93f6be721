"""Instances and proposals of a model input, from a transformed sample."""

from __future__ import annotations

import torch
from torch import Tensor

from hydet.data.datasets.record import Proposals
from hydet.data.mapping.regions import MaskFormat
from hydet.data.mapping.sample import Sample
from hydet.structures import BitMasks, Boxes, Instances, Keypoints, PolygonMasks, RotatedBoxes

__all__ = ["build_instances", "build_proposals"]


def build_instances(sample: Sample, *, mask_format: MaskFormat | None, min_box_size: float) -> Instances:
    """Clip the objects of a sample to its image, and drop empty ones.

    A box that the image border cuts is replaced by the box around the visible part of its mask. The clipped box may be
    far too large, for example if only a corner of a triangle is left.

    Args:
        sample: transformed sample, with regions if ``mask_format`` is given; not modified.
        mask_format: format of ``gt_masks``; None for no masks.
        min_box_size: in pixels; objects are dropped unless their box is wider and higher than this.

    Returns:
        Instances with ``gt_boxes``, ``gt_classes`` and, if the sample has them, ``gt_masks`` and ``gt_keypoints``.
    """
    height, width = sample.size
    gt_boxes: Boxes = Boxes(sample.boxes)
    gt_boxes.clip((height, width))
    keep = gt_boxes.nonempty(min_box_size)
    masks: BitMasks | PolygonMasks | None = None
    if mask_format is not None:
        assert sample.regions is not None
        to_masks = sample.regions.to_bitmasks if mask_format == "bitmask" else sample.regions.to_polygon_masks
        masks = to_masks(height, width)
        keep &= masks.nonempty()
        cut = ((sample.boxes != gt_boxes.tensor).any(dim=1) & keep).nonzero().flatten()
        if cut.numel():
            gt_boxes.tensor[cut] = masks[cut].get_bounding_boxes().tensor
            keep &= gt_boxes.nonempty(min_box_size)
    if sample.rotated_boxes is not None:
        gt_boxes = RotatedBoxes(sample.rotated_boxes)
        keep &= _overlap_image(gt_boxes.tensor, height, width)
        gt_boxes.clip((height, width))
        keep &= gt_boxes.nonempty(min_box_size)
    instances = Instances((height, width), gt_boxes=gt_boxes, gt_classes=sample.classes)
    if masks is not None:
        instances.gt_masks = masks
    if sample.keypoints is not None:
        instances.gt_keypoints = Keypoints(_hide_outside(sample.keypoints, height, width))
    return instances if bool(keep.all()) else instances[keep]


def build_proposals(
    proposals: Proposals, size: tuple[int, int], *, max_proposals: int, min_box_size: float
) -> Instances:
    """Clip proposals to the image, drop empty ones, and select those with the highest scores.

    Args:
        proposals: in the frame of the transformed image.
        size: (height, width) of that image in pixels.
        max_proposals: largest number of proposals to select.
        min_box_size: in pixels; proposals are dropped unless they are wider and higher than this.

    Returns:
        Instances with ``proposal_boxes`` and ``objectness_logits``, in descending order of the logits.
    """
    boxes = Boxes(proposals.boxes)
    boxes.clip(size)
    keep = boxes.nonempty(min_box_size).nonzero().flatten()
    logits = proposals.objectness_logits
    best = keep[logits[keep].argsort(descending=True, stable=True)[:max_proposals]]
    return Instances(size, proposal_boxes=boxes[best], objectness_logits=logits[best])


def _hide_outside(keypoints: Tensor, height: int, width: int) -> Tensor:
    """Set invisible ``(N, K, 3)`` keypoints and those outside the image to zero, so that losses ignore them."""
    x, y, visibility = keypoints.unbind(dim=2)
    inside = (x >= 0) & (x <= width) & (y >= 0) & (y <= height) & (visibility > 0)
    return torch.where(inside[..., None], keypoints, 0.0)


def _overlap_image(boxes: Tensor, height: int, width: int) -> Tensor:
    """Return ``(N,)`` bool: True for rotated boxes ``(N, 5)`` that share some area with the image.

    Two rectangles are disjoint if and only if their projections on an axis of one of them are (separating axes).
    """
    box_size, image_size = boxes[:, 2:4], boxes.new_tensor([[width, height]])
    radians = boxes[:, 4:].deg2rad()
    sin, cos = radians.sin(), radians.cos()
    distance = boxes[:, :2] - image_size / 2  # (N, 2) between the centers, along the axes of the image
    x, y = distance.split(1, dim=1)
    turned_distance = torch.cat([x * cos - y * sin, x * sin + y * cos], dim=1)  # along the axes of the box

    def half_extent(size: Tensor) -> Tensor:  # of a rectangle, along axes turned by the angle
        return (cos.abs() * size + sin.abs() * size.flip(1)) / 2

    overlap_on_image_axes = distance.abs() < image_size / 2 + half_extent(box_size)
    overlap_on_box_axes = turned_distance.abs() < box_size / 2 + half_extent(image_size)
    return (overlap_on_image_axes & overlap_on_box_axes).all(dim=1)
