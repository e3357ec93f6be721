"""Decoding of image files to 8-bit RGB tensors."""

from __future__ import annotations

import functools
import importlib
import io
import re
import sys
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hydet.data.images.opening import Header, open_image, read_header
from hydet.data.images.orientation import INVERSE_ORIENTATION, ORIENTATION_TAG, orient_image
from hydet.data.images.pillow_images import gray_values, to_rgb
from hydet.data.images.png import PngFile, is_png
from hydet.data.images.value_range import ValueRange, to_8_bits

__all__ = ["TooManyPixelsError", "decode_image", "decode_labels"]

_IS_LITTLE_ENDIAN = sys.byteorder == "little"


class TooManyPixelsError(Exception):
    """The image has more pixels than allowed."""


def decode_image(content: np.ndarray, *, orient: bool, value_range: ValueRange, max_pixels: int) -> Tensor:
    """Decode the content of an image file.

    Args:
        content: ``(size,)`` uint8.
        orient: turn the image upright.
        value_range: see :func:`hydet.data.images.value_range.to_8_bits`.
        max_pixels: largest number of pixels.

    Returns:
        ``(3, H, W)`` uint8 RGB.

    Raises:
        TooManyPixelsError: if the image is larger, before any pixel is decoded.
        Exception: of any type, from Pillow, if the file is broken.
    """
    png = PngFile(content.data) if is_png(content[:8].tobytes()) else None
    stream = io.BytesIO(content.data)
    with open_image(stream) as image:
        header = read_header(image, stream)
        num_pixels = header.height * header.width
        if num_pixels > max_pixels:
            raise TooManyPixelsError(
                f"the image has {header.width} x {header.height} = {num_pixels / 1e6:.0f} megapixels, "
                f"more than max_pixels={max_pixels}"
            )
        fast = _decode_with_torchvision(image, content, header)
        if fast is not None:
            return orient_image(fast, header.orientation) if orient else fast
        rgb = _decode_to_rgb(image, content, value_range)
        if png is not None and not rgb[-1].any():
            png.check_rows()
        pixels = torch.from_numpy(rgb).permute(2, 0, 1)  # (H, W, 3) -> (3, H, W)
        is_upright = image.format == "TIFF" and ORIENTATION_TAG not in image.getexif()  # Pillow turns TIFF
    if is_upright and not orient:
        return orient_image(pixels, INVERSE_ORIENTATION.get(header.orientation, header.orientation))
    return orient_image(pixels, header.orientation) if orient and not is_upright else pixels


def decode_labels(content: np.ndarray) -> np.ndarray:
    """Decode an image file to the values that are stored, ``(H, W)`` or ``(H, W, C)``.

    Raises:
        Exception: of any type, from Pillow, if the file is broken.
    """
    if is_png(content[:8].tobytes()):
        PngFile(content.data).check_rows()
    with open_image(io.BytesIO(content.data)) as image:
        return np.array(image)


def _decode_with_torchvision(image: Image.Image, content: np.ndarray, header: Header) -> Tensor | None:
    """Decode a JPEG or WebP file with torchvision, which is faster than Pillow; None if it cannot.

    Its decoders of these formats report broken files, unlike that of PNG.
    """
    if image.format not in ("JPEG", "MPO", "WEBP") or image.mode not in ("RGB", "RGBA", "L"):
        return None
    if image.format == "WEBP" and getattr(image, "n_frames", 1) > 1:
        return None
    decoder = _torchvision_decoder("decode_webp" if image.format == "WEBP" else "decode_jpeg")
    if decoder is None:
        return None
    try:
        pixels = decoder(torch.from_numpy(content))
    except (RuntimeError, AttributeError, Warning):
        # A broken file, a torchvision that was built without decoders, or its warning of their end made an error.
        return None
    return pixels if pixels.shape == (3, header.height, header.width) else None


@functools.cache
def _torchvision_decoder(name: str) -> Callable[[Tensor], Tensor] | None:
    """Return a decoder of torchvision, or None: torchvision is going to drop its decoders."""
    try:
        io_module = importlib.import_module("torchvision.io")
        return functools.partial(getattr(io_module, name), mode=io_module.ImageReadMode.RGB)
    except (ImportError, AttributeError):
        return None


def _decode_to_rgb(image: Image.Image, content: np.ndarray, value_range: ValueRange) -> np.ndarray:
    """Decode an image with Pillow to ``(H, W, 3)`` uint8."""
    values = _read_deep_channels(image, content)
    values = gray_values(image) if values is None else values
    if values is None:
        return to_rgb(image)
    rgb = to_8_bits(values, value_range)
    return rgb if rgb.ndim == 3 else np.repeat(rgb[:, :, None], 3, axis=2)


def _read_deep_channels(image: Image.Image, content: np.ndarray) -> np.ndarray | None:
    """Return the values of a color image with 16 bits per channel, ``(H, W, 3)`` uint16; None for other images.

    Pillow keeps only the high byte of each value. With the byte order exchanged, it keeps the low byte.
    """
    raw_mode = _raw_mode(image)
    if raw_mode == "LA;16B":  # gray and alpha: the four bytes of a pixel as channels
        _set_raw_mode(image, "RGBA")
        high, low = np.array(image)[:, :, :1], np.array(image)[:, :, 1:2]
    elif match := re.fullmatch("(RGB|RGBA|RGBX);16([BLN])", raw_mode):
        high = np.array(image)[:, :, :3]
        order = "L" if match[2] == "B" or (match[2] == "N" and not _IS_LITTLE_ENDIAN) else "B"
        with open_image(io.BytesIO(content.data)) as again:
            _set_raw_mode(again, f"{match[1]};16{order}")
            low = np.array(again)[:, :, :3]
    else:
        return None
    values = high.astype(np.uint16) << 8 | low
    return values if values.shape[2] == 3 else np.repeat(values, 3, axis=2)


def _raw_mode(image: Image.Image) -> str:
    """Return Pillow's name of the layout of the pixels in the file; an empty string if it has none."""
    tiles = getattr(image, "tile", None)
    if not tiles:
        return ""
    arguments = tiles[0][3]
    mode = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return mode if isinstance(mode, str) else ""


def _set_raw_mode(image: Image.Image, raw_mode: str) -> None:
    """Let Pillow read the pixels in another layout."""
    tiles = []
    for tile in image.tile:  # type: ignore[attr-defined]
        codec, extents, offset, arguments = tile
        changed = (raw_mode, *arguments[1:]) if isinstance(arguments, tuple) else raw_mode
        values = (codec, extents, offset, changed)
        tiles.append(type(tile)(*values) if hasattr(tile, "_fields") else values)  # named in newer versions
    image.tile = tiles  # type: ignore[attr-defined]
