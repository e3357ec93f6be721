"""The registered op: checks, dispatch, shapes."""

from __future__ import annotations

import torch
from torch import Tensor

from hydet.kernels.dispatch import choose
from hydet.kernels.paste_masks.reference import paste_masks_reference

__all__ = ["paste_masks"]


@torch.library.custom_op("hydet::paste_masks", mutates_args=())
def _paste_masks(masks: Tensor, boxes: Tensor, height: int, width: int, threshold: float) -> Tensor:
    if choose("paste_masks", masks.device) == "triton":
        from hydet.kernels.paste_masks.triton_impl import launch_paste_masks

        return launch_paste_masks(masks, boxes, height, width, threshold)
    return paste_masks_reference(masks, boxes, height, width, threshold)


@_paste_masks.register_fake
def _(masks: Tensor, boxes: Tensor, height: int, width: int, threshold: float) -> Tensor:
    dtype = torch.uint8 if threshold < 0 else torch.bool
    return masks.new_empty(masks.shape[0], height, width, dtype=dtype)


def paste_masks(masks: Tensor, boxes: Tensor, image_shape: tuple[int, int], threshold: float = 0.5) -> Tensor:
    """Resample each mask over its box and threshold it.

    A mask is sampled bilinearly at the centres of the image's pixels, with zeros around it, so that it fades out over
    half a cell beyond its box. Beyond the result, memory stays bounded whatever the number of masks.

    Args:
        masks: ``(N, I, J)`` floats in [0, 1], usually square; computed in float32 whatever their dtype.
        boxes: ``(N, 4)`` xyxy in pixels of the image, possibly reaching beyond it. One without area or not finite
            draws nothing, nor does one wholly outside.
        image_shape: (height, width) in pixels.
        threshold: a pixel is inside from this value on. A negative one asks for the values themselves.

    Returns:
        ``(N, height, width)`` bool, or uint8 ``floor(255 * value)`` if ``threshold`` is negative; without gradient.

    Raises:
        ValueError: if shapes do not fit, or the devices differ.
        TypeError: for integer masks or boxes.
    """
    if masks.ndim != 3:
        raise ValueError(f"masks must be (N, M, M), got {tuple(masks.shape)}")
    if boxes.ndim != 2 or boxes.shape[1] != 4 or boxes.shape[0] != masks.shape[0]:
        raise ValueError(f"boxes must be ({masks.shape[0]}, 4), one a mask, got {tuple(boxes.shape)}")
    if not masks.is_floating_point() or not boxes.is_floating_point():
        raise TypeError(f"masks and boxes must be floating point, got {masks.dtype} and {boxes.dtype}")
    if masks.device != boxes.device:
        raise ValueError(f"masks and boxes must be on one device, got {masks.device} and {boxes.device}")
    height, width = image_shape
    if height < 0 or width < 0:
        raise ValueError(f"image_shape must not be negative, got {tuple(image_shape)}")
    return _paste_masks(masks.detach(), boxes.detach(), height, width, float(threshold))
