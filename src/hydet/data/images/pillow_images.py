"""Conversion of opened Pillow images to 8-bit RGB."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hydet.data.images.orientation import ORIENTATION_TAG, orient_image, read_orientation
from hydet.data.images.value_range import ValueRange, to_8_bits

__all__ = ["convert_pillow_image", "gray_values", "to_rgb"]

_PREMULTIPLIED = {"RGBa": "RGBA", "La": "LA"}  # modes that Pillow converts to RGB in two steps only


def convert_pillow_image(image: Image.Image, *, value_range: ValueRange) -> Tensor:
    """Return a Pillow image as ``(3, H, W)`` uint8 RGB, upright by its EXIF orientation.

    Args:
        image: in any mode; not changed.
        value_range: see :func:`hydet.data.images.value_range.to_8_bits`; for images with more than 8 bits per channel.
    """
    orientation = read_orientation(image)
    values = gray_values(image)
    pixels = (
        to_rgb(image.copy()) if values is None else np.repeat(to_8_bits(values, value_range)[..., None], 3, 2)
    )
    if image.format == "TIFF" and ORIENTATION_TAG not in image.getexif():
        orientation = 1  # Pillow turns TIFF images when it loads them
    return orient_image(torch.from_numpy(pixels).permute(2, 0, 1), orientation).contiguous()


def gray_values(image: Image.Image) -> np.ndarray | None:
    """Return the ``(H, W)`` values of a gray image with more than 8 bits per pixel; None for other images."""
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    if image.mode not in ("I", "F"):
        return None
    values = np.asarray(image)
    if image.mode == "I" and values.min() >= 0 and values.max() < 2**16:
        return values.astype(np.uint16)  # some versions of Pillow open 16-bit files in this mode
    return values


def to_rgb(image: Image.Image) -> np.ndarray:
    """Return the ``(H, W, 3)`` uint8 values of an image with 8 bits per channel; drops transparency."""
    image.load()
    image.info.pop("transparency", None)  # the conversion warns about some forms of it
    if image.mode in _PREMULTIPLIED:
        image = image.convert(_PREMULTIPLIED[image.mode])
    return np.array(image.convert("RGB"))
