"""EXIF orientation: how a stored image has to be turned to be upright."""

from __future__ import annotations

from PIL import Image
from torch import Tensor

__all__ = ["INVERSE_ORIENTATION", "ORIENTATION_TAG", "orient_image", "read_orientation", "swaps_sides"]

ORIENTATION_TAG = 0x0112
# The orientation that undoes another; the others undo themselves.
INVERSE_ORIENTATION = {6: 8, 8: 6}


def read_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an image that is open but not loaded, 1 ... 8; 1 if there is none.

    Unreadable EXIF data count as none.
    """
    try:
        if image.format == "TIFF":
            value = image.tag_v2.get(ORIENTATION_TAG, 1)  # type: ignore[attr-defined]
        else:
            # The method of the base class: that of PNG files decodes the whole image if the header has no EXIF data.
            value = Image.Image.getexif(image).get(ORIENTATION_TAG, 1)
    except Exception:  # Pillow raises errors of many types on broken EXIF data
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def swaps_sides(orientation: int) -> bool:
    """Return True if an orientation exchanges height and width."""
    return orientation >= 5


def orient_image(image: Tensor, orientation: int) -> Tensor:
    """Turn a stored image ``(C, H, W)`` upright; orientations from 5 on give ``(C, W, H)``."""
    if swaps_sides(orientation):
        image = image.transpose(1, 2)
    match orientation:
        case 2 | 6:
            return image.flip(2)
        case 4 | 8:
            return image.flip(1)
        case 3 | 7:
            return image.flip((1, 2))
        case _:
            return image
