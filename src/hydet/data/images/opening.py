"""Opening of image files with Pillow, up to their headers."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Iterator
from typing import BinaryIO, cast

from PIL import Image, UnidentifiedImageError

from hydet.data.images.orientation import read_orientation, swaps_sides
from hydet.data.images.pillow_limit import without_pillow_limit
from hydet.data.images.png import find_exif

__all__ = ["Header", "open_image", "read_header"]

_COMMON_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM")  # Pillow opens these without importing all its plugins
# EPS files are programs, which Pillow has Ghostscript run; the others need drivers that Pillow does not contain.
_NOT_READ = frozenset({"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"})


# Pillow warns of broken EXIF data and other metadata without naming the file; images are read without them.
warnings.filterwarnings(
    "ignore",
    message="Corrupt EXIF|Possibly corrupt EXIF|Truncated File Read|Metadata Warning|Invalid APP",
    category=UserWarning,
    module="PIL",
)


@dataclasses.dataclass(frozen=True)
class Header:
    """Size and orientation from the header of an image file.

    Args:
        height: height of the stored image in pixels.
        width: width of the stored image in pixels.
        orientation: EXIF orientation, 1 ... 8.
    """

    height: int
    width: int
    orientation: int

    @property
    def stored_size(self) -> tuple[int, int]:
        """(height, width) of the stored image."""
        return self.height, self.width

    @property
    def upright_size(self) -> tuple[int, int]:
        """(height, width) after the image was turned upright."""
        return (self.width, self.height) if swaps_sides(self.orientation) else (self.height, self.width)


@contextlib.contextmanager
def open_image(stream: BinaryIO) -> Iterator[Image.Image]:
    """Open the image of a stream, the first one of an animation or a file of several pages, without Pillow's limit.

    Pixels are decoded when they are accessed. Errors of Pillow pass through, of whatever type they are.

    Raises:
        UnidentifiedImageError: if the format is unknown or the header damaged.
    """
    with without_pillow_limit():
        try:
            Image.preinit()
            image = Image.open(stream, formats=_COMMON_FORMATS)
        except UnidentifiedImageError:
            Image.init()
            others = tuple(name for name in Image.ID if name not in _NOT_READ)
            image = Image.open(stream, formats=others)
        with image:
            yield image


def read_header(image: Image.Image, stream: BinaryIO) -> Header:
    """Return the stored size and the EXIF orientation of an image that is open but not decoded.

    Args:
        image: opened from ``stream``.
        stream: read only for PNG files, which may have EXIF data after the pixels; left at the same position.
    """
    if image.format == "PNG" and "exif" not in image.info:
        position = stream.tell()
        exif = find_exif(stream)
        stream.seek(position)
        if exif is not None:
            image.info["exif"] = b"Exif\0\0" + exif
    width, height = image.size
    if image.format == "TIFF":  # some versions of Pillow have exchanged the sides already
        tags = image.tag_v2  # type: ignore[attr-defined]
        width, height = cast(int, tags[256]), cast(int, tags[257])
    return Header(height, width, read_orientation(image))
