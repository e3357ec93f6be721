"""Reading of image files and label maps."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import UnidentifiedImageError
from torch import Tensor

from hydet.data.errors import DataError
from hydet.data.images.decoding import TooManyPixelsError, decode_image, decode_labels
from hydet.data.images.files import check_regular_file, describe_content, describe_error, read_bytes
from hydet.data.images.opening import Header, open_image, read_header
from hydet.data.images.value_range import ValueRange, check_value_range

__all__ = ["MAX_PIXELS", "ImageReader", "read_image", "read_image_header", "read_image_size", "read_labels"]

MAX_PIXELS = 500_000_000  # of an image by default: 1.5 GB as 8-bit RGB
_BYTES_PER_PIXEL = 16  # of the largest files: four channels of 32 bits
_EXTRA_BYTES = 2**26  # for headers, profiles and the further pages of a small file
_START_BYTES = 1024  # that tell what a file is which is no image


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageReader:
    """Reads image files of any format that Pillow decodes: JPEG, PNG, WebP, GIF, TIFF, BMP and others.

    Animations and files of several pages give their first image. Transparency is dropped. JPEG and WebP files are
    decoded by torchvision where it has decoders, which are faster and give the same pixels.

    Args:
        value_range: values that become 0 and 255 in images with more than 8 bits per channel: ``"auto"``, ``"full"``,
            ``"minmax"`` or ``[low, high]``. By default, integers are scaled by the smallest usual bit depth that holds
            all values of the image, and floats from [0, 1] or [0, 255]. This depends on each image; ``[low, high]`` is
            the same for all. See :func:`hydet.data.images.value_range.to_8_bits`.
        max_pixels: largest number of pixels; a larger image is an error, found before its pixels are decoded.

    Raises:
        ValueError: if ``value_range`` is unknown or ``max_pixels`` is below 1.
    """

    value_range: ValueRange = "auto"
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        check_value_range(self.value_range)
        if self.max_pixels < 1:
            raise ValueError(f"max_pixels must be at least 1, got {self.max_pixels}")

    @property
    def max_bytes(self) -> int:
        """Size above which a file cannot be an image of ``max_pixels``."""
        return _BYTES_PER_PIXEL * self.max_pixels + _EXTRA_BYTES

    def __call__(self, path: str | Path, *, orient: bool = True) -> Tensor:
        """Read an image; see :func:`read_image`."""
        return self._decode(read_bytes(path, max_bytes=self.max_bytes), str(path), orient=orient)

    def decode(self, content: bytes, *, name: str, orient: bool = True) -> Tensor:
        """Decode the content of an image file, such as an upload.

        Args:
            content: the whole file.
            name: name of the image, for messages.
            orient: turn the image upright as its EXIF orientation says.

        Returns:
            ``(3, H, W)`` uint8 RGB.

        Raises:
            DataError: if the content is empty, truncated, damaged, too large or not an image; the message has the name.
        """
        if len(content) > self.max_bytes:
            raise DataError(f"{name}: the file has {len(content) / 1e9:.1f} GB, too many for an image")
        # A copy, because torch warns about memory that it may not change.
        return self._decode(np.frombuffer(content, dtype=np.uint8).copy(), name, orient=orient)

    def _decode(self, content: np.ndarray, name: str, *, orient: bool) -> Tensor:
        with _errors_naming(name, content):
            try:
                return decode_image(
                    content, orient=orient, value_range=self.value_range, max_pixels=self.max_pixels
                )
            except TooManyPixelsError as error:
                raise DataError(f"{name}: {error}; raise this setting to read it") from error


def read_image(
    path: str | Path,
    *,
    orient: bool = True,
    value_range: ValueRange = "auto",
    max_pixels: int = MAX_PIXELS,
) -> Tensor:
    """Read an image in any format that Pillow can decode; see :class:`ImageReader`.

    Args:
        path: path of the file.
        orient: turn the image upright as its EXIF orientation says.
        value_range: values that become 0 and 255 in images with more than 8 bits per channel.
        max_pixels: largest number of pixels.

    Returns:
        ``(3, H, W)`` uint8 RGB.

    Raises:
        DataError: if the file is missing, truncated, damaged, too large or not an image; the message names it.
    """
    return ImageReader(value_range=value_range, max_pixels=max_pixels)(path, orient=orient)


def read_image_header(path: str | Path) -> Header:
    """Read the stored size and the EXIF orientation of an image, without decoding it.

    Args:
        path: path of the file.

    Raises:
        DataError: if the file is missing or not an image.
    """
    check_regular_file(path)
    with _errors_naming(str(path), None), Path(path).open("rb") as stream, open_image(stream) as image:
        return read_header(image, stream)


def read_image_size(path: str | Path) -> tuple[int, int]:
    """Read the size of an image from its header, without decoding it.

    Args:
        path: path of the file.

    Returns:
        (height, width) in pixels after the EXIF orientation, as :func:`read_image` returns the image.

    Raises:
        DataError: if the file is missing or not an image.
    """
    return read_image_header(path).upright_size


def read_labels(path: str | Path) -> np.ndarray:
    """Read an image whose pixel values are labels, as they are stored.

    Args:
        path: path of the file.

    Returns:
        ``(H, W)`` values of a grayscale or palette image, or ``(H, W, C)`` of a color image, in the dtype of
        the file.

    Raises:
        DataError: if the file is missing or not an image.
    """
    content = read_bytes(path, max_bytes=_BYTES_PER_PIXEL * MAX_PIXELS)
    with _errors_naming(str(path), content):
        return decode_labels(content)


@contextlib.contextmanager
def _errors_naming(name: str, content: np.ndarray | None) -> Iterator[None]:
    """Turn every error while reading an image into a ``DataError`` that names it.

    Args:
        name: path or name of the image.
        content: content of the file; None reads its start from ``name`` if it is needed.
    """
    try:
        yield
    except DataError:
        raise
    except UnidentifiedImageError as error:
        start = _read_start(name) if content is None else content[:_START_BYTES].tobytes()
        raise DataError(f"{name} {_describe_unknown(start)}") from error
    except Exception as error:  # Pillow raises errors of many types on broken files
        raise DataError(f"{name} is not a readable image: {describe_error(error)}") from error


def _read_start(path: str) -> bytes:
    with Path(path).open("rb") as stream:
        return stream.read(_START_BYTES)


def _describe_unknown(start: bytes) -> str:
    """Return what is wrong with a file that Pillow cannot identify, given its first bytes."""
    if not start:
        return "is an empty file"
    return f"is {describe_content(start) or 'not a readable image: unknown format'}"
