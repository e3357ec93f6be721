"""Conversion of hydet's model inputs to mmdet: one ``DetDataSample`` per image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from hydet.structures import BitMasks, Instances, ModelInput, PolygonMasks

if TYPE_CHECKING:
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BaseInstanceMasks

__all__ = ["add_ground_truth", "make_sample", "masks_to_mmdet", "sem_seg_to_mmdet"]


def make_sample(
    entry: ModelInput, image_size: tuple[int, int], output_size: tuple[int, int]
) -> DetDataSample:
    """Create the sample that describes an image to mmdet.

    Args:
        entry: a model input.
        image_size: (height, width) of its ``image``.
        output_size: (height, width) of the results, which mmdet calls the original shape.

    Returns:
        A sample without ground truth.
    """
    from mmdet.structures import DetDataSample

    (height, width), (out_height, out_width) = image_size, output_size
    return DetDataSample(
        metainfo={
            "img_shape": image_size,
            "ori_shape": output_size,
            "pad_shape": image_size,
            "batch_input_shape": image_size,
            "scale_factor": (width / out_width, height / out_height),
            "flip": False,
            "img_path": entry.get("file_name"),
            "img_id": entry.get("image_id"),
        }
    )


def add_ground_truth(sample: DetDataSample, instances: Instances, sem_seg: Tensor | None) -> None:
    """Add ground truth to a sample, in place.

    Args:
        sample: the sample of the image.
        instances: with ``gt_boxes``, ``gt_classes`` and optionally ``gt_masks``, in the frame of the image.
        sem_seg: ``(H, W)`` labels in mmdet's numbering, or ``None``.
    """
    from mmengine.structures import InstanceData, PixelData

    gt_instances = InstanceData(bboxes=instances.gt_boxes.tensor, labels=instances.gt_classes.long())
    if instances.has("gt_masks"):
        gt_instances.masks = masks_to_mmdet(instances.gt_masks, instances.image_size)
    sample.gt_instances = gt_instances
    if sem_seg is not None:
        sample.gt_sem_seg = PixelData(sem_seg=sem_seg[None])


def masks_to_mmdet(masks: BitMasks | PolygonMasks | Tensor, image_size: tuple[int, int]) -> BaseInstanceMasks:
    """Convert masks to mmdet's ``BitmapMasks`` or ``PolygonMasks``, which are stored on the CPU.

    Args:
        masks: masks of N objects; a tensor is ``(N, H, W)``.
        image_size: (height, width) of the image.

    Returns:
        ``PolygonMasks`` if every object has a polygon, else ``BitmapMasks``.

    Raises:
        ValueError: if bitmaps differ in size from the image.
        TypeError: if ``masks`` has another type.
    """
    from mmdet.structures import mask

    if isinstance(masks, PolygonMasks):
        if len(masks) > 0 and all(len(polygons) > 0 for polygons in masks):
            return mask.PolygonMasks([list(polygons) for polygons in masks], *image_size)
        masks = BitMasks.from_polygon_masks(masks, *image_size)  # mmdet needs a polygon per object
    if isinstance(masks, Tensor):
        masks = BitMasks(masks)
    if not isinstance(masks, BitMasks):
        raise TypeError(f"gt_masks must be BitMasks or PolygonMasks, got {type(masks).__name__}")
    if masks.image_size != tuple(image_size):
        raise ValueError(f"gt_masks have size {masks.image_size}, the image has size {tuple(image_size)}")
    return mask.BitmapMasks(masks.tensor.cpu().numpy().astype(np.uint8), *image_size)


def sem_seg_to_mmdet(sem_seg: Tensor, num_things: int, ignore_value: int = 255) -> Tensor:
    """Convert semantic labels of a panoptic model to mmdet's numbering.

    hydet has label 0 for all things, then stuff. mmdet has all thing classes first, then stuff.

    Args:
        sem_seg: ``(H, W)`` int64 labels of hydet.
        num_things: number of thing classes.
        ignore_value: label of unlabeled pixels, which does not change.

    Returns:
        ``(H, W)`` int64 labels of mmdet. All things have the label of the first thing class, since mmdet only
        distinguishes things from stuff.
    """
    is_stuff = (sem_seg > 0) & (sem_seg != ignore_value)
    return torch.where(is_stuff, sem_seg + (num_things - 1), sem_seg)
