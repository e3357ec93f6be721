"""Paste masks that are relative to a box into the image."""

from __future__ import annotations

import torch
from torch import Tensor

from hydet import kernels
from hydet.kernels.paste_masks.torch_impl import paste_whole_images
from hydet.structures.boxes import Boxes, box_tensor

__all__ = ["paste_masks_in_image"]


@torch.no_grad()
def paste_masks_in_image(
    masks: Tensor, boxes: Boxes | Tensor, image_shape: tuple[int, int], threshold: float = 0.5
) -> Tensor:
    """Resample each mask over its box and threshold it.

    A mask is sampled bilinearly at the centers of the image's pixels, with zeros around it, so its values fade out over
    half a cell beyond the box. Memory beyond the result is bounded and does not depend on the number of masks.

    Args:
        masks: ``(N, M, M)`` floats, usually probabilities; may be rectangular.
        boxes: N boxes in pixels of the image, which may reach over its border. A box outside the image, without area
            or with a coordinate that is not finite gives an empty mask.
        image_shape: ``(height, width)`` in pixels.
        threshold: pixels with a value of at least ``threshold`` are inside. A negative threshold returns the values.

    Returns:
        ``(N, height, width)`` bool; uint8 ``floor(255 * value)`` if ``threshold`` is negative.

    Raises:
        ValueError: if ``masks`` does not have three dimensions, or the number of boxes differs from that of masks.
    """
    corners = box_tensor(boxes).to(masks.device, torch.float32)
    masks = masks.to(torch.float32)
    if torch.compiler.is_exporting():
        # Two matrix products per mask, which every exported runtime has.
        values = paste_whole_images(masks, corners, *image_shape)
        return values >= threshold if threshold >= 0 else (values * 255).to(torch.uint8)
    return kernels.paste_masks(masks, corners, image_shape, threshold)
