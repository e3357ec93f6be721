"""The op ``hydet::paste_masks``: argument checks, dispatch and fake kernel. It has no gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from hydet.kernels.dispatch import Preference
from hydet.kernels.paste_masks.torch_impl import forward_torch

__all__ = ["PREFERENCE", "paste_masks"]

PREFERENCE = Preference("paste_masks", cpu=("torch",), cuda=("triton", "torch"))


@torch.library.custom_op("hydet::paste_masks", mutates_args=())
def _paste_masks(masks: Tensor, boxes: Tensor, height: int, width: int, threshold: float) -> Tensor:
    if PREFERENCE.choose(masks.device) == "triton":
        from hydet.kernels.paste_masks.triton_impl import launch_forward

        return launch_forward(masks, boxes, height, width, threshold)
    return forward_torch(masks, boxes, height, width, threshold)


@_paste_masks.register_fake
def _(masks: Tensor, boxes: Tensor, height: int, width: int, threshold: float) -> Tensor:
    dtype = torch.uint8 if threshold < 0 else torch.bool
    return masks.new_empty(masks.shape[0], height, width, dtype=dtype)


def paste_masks(masks: Tensor, boxes: Tensor, image_shape: tuple[int, int], threshold: float = 0.5) -> Tensor:
    """Resample each mask to its box in the image and apply a threshold.

    Masks are sampled bilinearly at pixel centers and surrounded by zeros, so each fades out over half a cell beyond its
    box. Apart from the result, the memory is bounded for any number of masks.

    Args:
        masks: ``(N, I, J)`` floats in [0, 1], usually with I = J. Any precision is computed in float32.
        boxes: ``(N, 4)`` xyxy in pixels of the image; they may extend beyond it. A box without area, with a non-finite
            value or outside of the image gives an empty mask.
        image_shape: (height, width) in pixels.
        threshold: a pixel belongs to the mask if its value is at least ``threshold``. If negative, the values are
            returned instead.

    Returns:
        ``(N, height, width)`` bool, or uint8 ``floor(255 * value)`` if ``threshold`` is negative; without gradient.

    Raises:
        ValueError: if the shapes do not match, or the devices differ.
        TypeError: if masks or boxes are integers.
    """
    if masks.ndim != 3:
        raise ValueError(f"masks must be (N, I, J), got {tuple(masks.shape)}")
    if boxes.ndim != 2 or boxes.shape[1] != 4 or boxes.shape[0] != masks.shape[0]:
        raise ValueError(f"boxes must be ({masks.shape[0]}, 4), one per mask, got {tuple(boxes.shape)}")
    if not masks.is_floating_point() or not boxes.is_floating_point():
        raise TypeError(f"masks and boxes must be floating point, got {masks.dtype} and {boxes.dtype}")
    if masks.device != boxes.device:
        raise ValueError(f"masks and boxes must be on the same device, got {masks.device} and {boxes.device}")
    height, width = image_shape
    if height < 0 or width < 0:
        raise ValueError(f"image_shape must not be negative, got {tuple(image_shape)}")
    pasted: Tensor = _paste_masks(masks.detach(), boxes.detach(), height, width, float(threshold))
    return pasted
