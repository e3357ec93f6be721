"""From hydet's inputs to mmdet's: one ``DetDataSample`` an image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hydet.structures import BitMasks, Instances, PolygonMasks

__all__ = ["add_ground_truth", "make_sample", "masks_to_mmdet", "sem_seg_to_mmdet"]


def make_sample(entry: Mapping[str, Any], image_size: tuple[int, int], output_size: tuple[int, int]) -> Any:
    """What mmdet wants to know about an image.

    Args:
        entry: one of hydet's inputs.
        image_size: (height, width) of its ``image``.
        output_size: (height, width) of the results; mmdet calls this the original's.

    Returns:
        A ``DetDataSample`` without ground truth.
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


def add_ground_truth(sample: Any, instances: Instances, sem_seg: Tensor | None) -> None:
    """Give a sample what losses need.

    Args:
        sample: a ``DetDataSample``, which is changed.
        instances: with ``gt_boxes``, ``gt_classes`` and perhaps ``gt_masks``, in the frame of the image.
        sem_seg: ``(H, W)`` labels as mmdet numbers them, or ``None``.
    """
    from mmengine.structures import InstanceData, PixelData

    truth = InstanceData(bboxes=instances.gt_boxes.tensor, labels=instances.gt_classes.long())
    if instances.has("gt_masks"):
        truth.masks = masks_to_mmdet(instances.gt_masks, instances.image_size)
    sample.gt_instances = truth
    if sem_seg is not None:
        sample.gt_sem_seg = PixelData(sem_seg=sem_seg[None])


def masks_to_mmdet(masks: BitMasks | PolygonMasks | Tensor, image_size: tuple[int, int]) -> Any:
    """mmdet's ``BitmapMasks`` or ``PolygonMasks``, which live on the CPU.

    Args:
        masks: of N objects; a tensor is ``(N, H, W)``.
        image_size: (height, width).

    Raises:
        ValueError: if bitmaps are of another size.
        TypeError: if ``masks`` is something else.
    """
    from mmdet.structures import mask

    if isinstance(masks, PolygonMasks):
        if len(masks) > 0 and all(len(polygons) > 0 for polygons in masks):
            return mask.PolygonMasks([list(polygons) for polygons in masks], *image_size)
        masks = BitMasks.from_polygon_masks(masks, *image_size)  # mmdet's need a polygon for every object
    if isinstance(masks, Tensor):
        masks = BitMasks(masks)
    if not isinstance(masks, BitMasks):
        raise TypeError(f"gt_masks must be BitMasks or PolygonMasks, got {type(masks).__name__}")
    if masks.image_size != tuple(image_size):
        raise ValueError(f"gt_masks are of size {masks.image_size}, the image is {tuple(image_size)}")
    return mask.BitmapMasks(masks.tensor.cpu().numpy().astype(np.uint8), *image_size)


def sem_seg_to_mmdet(sem_seg: Tensor, num_things: int, ignore_value: int = 255) -> Tensor:
    """Renumber semantic labels of a panoptic model.

    hydet has one label 0 for all things, then stuff; mmdet has all classes of things first, then stuff.

    Args:
        sem_seg: ``(H, W)`` int64, hydet's labels.
        num_things: number of thing classes.
        ignore_value: label of what is neither; it stays.

    Returns:
        ``(H, W)`` int64; where things are, the label is that of the first thing class, as mmdet only asks whether it
        is one.
    """
    is_stuff = (sem_seg > 0) & (sem_seg != ignore_value)
    return torch.where(is_stuff, sem_seg + (num_things - 1), sem_seg)
