"""Reading of image files and label maps."""

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

_ORIENTATION = 0x0112  # EXIF tag; values from 5 on swap height and width


def read_image(path: str | Path, *, orient: bool = True) -> Tensor:
    """Read an image in any format that torchvision or Pillow can decode.

    Args:
        path: path of the file.
        orient: rotate the image as its EXIF orientation says.

    Returns:
        ``(3, H, W)`` uint8 RGB. Transparency is dropped, and 16-bit values are scaled to 8 bits.

    Raises:
        DataError: if the file is missing, truncated or not an image.
    """
    try:
        content = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise DataError(f"{path}: {_reason(error)}") from error
    if content.size == 0:
        raise DataError(f"{path}: the file is empty")
    try:
        image: Tensor = decode_image(
            torch.from_numpy(content), ImageReadMode.RGB, apply_exif_orientation=orient
        )
    except RuntimeError:
        # torchvision decodes the common formats fast; Pillow decodes the others, such as BMP and TIFF.
        return _decode_with_pillow(content.tobytes(), path, orient)
    if image.dtype == torch.uint16:
        image = (image.int() // 257).to(torch.uint8)  # 65535 / 257 = 255
    return image


def _decode_with_pillow(content: bytes, path: str | Path, orient: bool) -> Tensor:
    try:
        with Image.open(io.BytesIO(content)) as image:
            oriented = ImageOps.exif_transpose(image) if orient else image
            if oriented.mode.startswith("I;16"):
                pixels = (np.asarray(oriented).astype(np.int64) // 257).astype(np.uint8)
                oriented = Image.fromarray(pixels)
            pixels = np.array(oriented.convert("RGB"))
    except Exception as error:  # Pillow's plugins raise errors of many types on broken files
        raise DataError(f"{path} is not a readable image: {_reason(error)}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def read_image_size(path: str | Path) -> tuple[int, int]:
    """Read from its header the size that an image has after ``read_image``.

    Args:
        path: path of the file.

    Returns:
        (height, width) in pixels, with the EXIF orientation applied.

    Raises:
        DataError: if the file is missing or not an image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            is_rotated = image.getexif().get(_ORIENTATION, 1) >= 5
    except Exception as error:
        raise DataError(f"{path} is not a readable image: {_reason(error)}") from error
    return (width, height) if is_rotated else (height, width)


def read_labels(path: str | Path) -> np.ndarray:
    """Read an image whose pixel values are labels.

    Args:
        path: path of the file.

    Returns:
        ``(H, W)`` values of a grayscale or palette image, or ``(H, W, C)`` of a color image, in the type of the file.

    Raises:
        DataError: if the file is missing or not an image.
    """
    try:
        with Image.open(path) as image:
            return np.array(image)
    except Exception as error:
        raise DataError(f"{path}: cannot be read as a label map: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split())
    return "unknown format" if "BytesIO" in text or not text else text
