"""Image files as tensors."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image

from hydet.data.errors import DataError

__all__ = ["read_image", "read_image_size", "read_labels"]

_ORIENTATION = 0x0112  # the EXIF tag; from 5 on the sides are exchanged


def read_image(path: str | Path, *, orient: bool = True) -> Tensor:
    """Read an image of any format that torchvision or Pillow knows.

    Args:
        path: of the file.
        orient: turn the image upright if its EXIF data says that the camera was not.

    Returns:
        ``(3, H, W)`` uint8 RGB; transparency is dropped.

    Raises:
        DataError: if the file is missing, truncated or no image.
    """
    try:
        content = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise DataError(f"{path}: {_reason(error)}") from error
    if content.size == 0:
        raise DataError(f"{path}: the file is empty")
    try:
        image = decode_image(torch.from_numpy(content), ImageReadMode.RGB, apply_exif_orientation=orient)
    except RuntimeError:
        return _decoded_by_pillow(content.tobytes(), path, orient)
    if image.dtype == torch.uint16:
        image = (image.int() // 257).to(torch.uint8)
    return image


def _decoded_by_pillow(content: bytes, path: str | Path, orient: bool) -> Tensor:
    try:
        with Image.open(io.BytesIO(content)) as image:
            upright = ImageOps.exif_transpose(image) if orient else image
            if upright.mode.startswith("I;16"):
                pixels = (np.asarray(upright).astype(np.int64) // 257).astype(np.uint8)
                upright = Image.fromarray(pixels)
            pixels = np.array(upright.convert("RGB"))
    except Exception as error:  # Pillow's plugins raise all kinds of things on broken files
        raise DataError(f"{path}: cannot be read as an image: {_reason(error)}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def read_image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) of an image as ``read_image`` gives it, from the header alone.

    Raises:
        DataError: if the file is missing or no image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(_ORIENTATION, 1) >= 5
    except Exception as error:
        raise DataError(f"{path}: cannot be read as an image: {_reason(error)}") from error
    return (width, height) if turned else (height, width)


def read_labels(path: str | Path) -> np.ndarray:
    """A picture whose pixels are numbers: ``(H, W)``, or ``(H, W, 3)`` where it has colours.

    Raises:
        DataError: if the file is missing or no image.
    """
    try:
        with Image.open(path) as image:
            return np.array(image)
    except Exception as error:
        raise DataError(f"{path}: cannot be read as a map of labels: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split())
    return "unknown format" if "BytesIO" in text or not text else text
