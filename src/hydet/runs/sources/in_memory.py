"""Images in memory: Pillow images, NumPy arrays and tensors."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hydet.data.images.pillow_images import convert_pillow_image
from hydet.data.images.value_range import ValueRange, to_8_bits

__all__ = ["Channels", "ImageInMemory", "convert_image"]

# Order of the color channels of an array or tensor.
Channels = Literal["RGB", "BGR"]
ImageInMemory = Image.Image | np.ndarray | Tensor


def convert_image(image: ImageInMemory, *, channels: Channels, value_range: ValueRange) -> Tensor:
    """Return an image as the image reader would return it from a file.

    Args:
        image: a Pillow image in any mode, which is turned upright by its EXIF data; an array ``(H, W, 3)``,
            ``(H, W, 4)`` with transparency, ``(H, W, 1)`` or ``(H, W)``; or a tensor ``(3, H, W)`` or ``(1, H, W)``.
        channels: order of the channels of an array or tensor.
        value_range: values that become 0 and 255, unless the image holds uint8; see
            :func:`hydet.data.images.value_range.to_8_bits`.

    Returns:
        ``(3, H, W)`` uint8 RGB on the CPU; it shares no memory with ``image``.

    Raises:
        ValueError: if the shape or dtype is not that of an image.
    """
    if isinstance(image, Image.Image):
        return convert_pillow_image(image, value_range=value_range)
    if isinstance(image, Tensor):
        values = _values_of_tensor(image)
    else:
        values = _values_of_array(image)
    if values.dtype != np.uint8:
        values = to_8_bits(values, value_range)
    if values.shape[2] == 1:
        values = np.repeat(values, 3, axis=2)
    elif channels == "BGR":
        values = values[:, :, ::-1]
    return torch.from_numpy(values.transpose(2, 0, 1).copy())  # (H, W, 3) -> (3, H, W)


def _values_of_tensor(image: Tensor) -> np.ndarray:
    """Return ``(H, W, C)`` values of a tensor, with one or three channels."""
    if image.ndim != 3 or image.shape[0] not in (1, 3) or image.numel() == 0:
        hint = "; pass list(batch) for a batch" if image.ndim == 4 else ""
        raise ValueError(
            f"a tensor with an image has the shape (3, H, W) or (1, H, W), got {tuple(image.shape)}{hint}"
        )
    image = image.detach().cpu()
    if image.dtype in (torch.float16, torch.bfloat16):
        image = image.float()  # NumPy has no bfloat16
    return _checked(image.permute(1, 2, 0).numpy())


def _values_of_array(image: np.ndarray) -> np.ndarray:
    """Return ``(H, W, C)`` values of an array, with one or three channels."""
    values = image[:, :, None] if image.ndim == 2 else image
    if values.ndim != 3 or values.shape[2] not in (1, 3, 4) or values.size == 0:
        is_channels_first = image.ndim == 3 and image.shape[0] in (1, 3)
        hint = "; torch.from_numpy(image) is read as (3, H, W)" if is_channels_first else ""
        raise ValueError(
            f"an array with an image has the shape (H, W, 3) or (H, W), got {tuple(image.shape)}{hint}"
        )
    return _checked(values[:, :, :3])


def _checked(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind not in "uif":
        raise ValueError(f"an image has integers or floats, got dtype {values.dtype}")
    return values
