"""Recognition of boxes that are written as two corners instead of corner and size."""

from __future__ import annotations

from collections.abc import Sequence

from hydet.data.coco.ids import IdTable
from hydet.data.coco.json_file import CocoFile, ImageEntry
from hydet.data.coco.json_values import are_finite

__all__ = ["are_corner_boxes"]

_MIN_BOXES = 3  # fewer boxes may fit both forms by chance
_MIN_OUTSIDE = 1 / 3  # of all boxes; corners of objects in the middle of an image and beyond reach outside
_EXCESS = 0.1  # of the side of the image; boxes from tools with careless borders reach over it by less
_TOLERANCE = 1.0  # pixels, because files have rounded numbers


def are_corner_boxes(file: CocoFile) -> bool:
    """Return True if all upright boxes fit their images as (x1, y1, x2, y2), and many do not as (x, y, width, height).

    Annotations that are broken in another way, or without a known image, do not count.
    """
    images = {image.image_id: image for image in file.images}
    num_boxes = num_outside = 0
    for entry in file.annotation_entries:
        if not isinstance(entry, dict):
            continue
        box, image = entry.get("bbox"), _find_image(entry.get("image_id"), images, file.image_ids)
        if image is None or not are_finite(box) or len(box) != 4:
            continue
        if not _fits_as_corners(box, image):
            return False
        num_boxes += 1
        num_outside += _reaches_outside(box, image)
    return num_boxes >= _MIN_BOXES and num_outside >= _MIN_OUTSIDE * num_boxes


def _find_image(image_id: object, images: dict[int, ImageEntry], ids: IdTable) -> ImageEntry | None:
    number = ids.find(image_id)
    return None if number is None else images.get(number)


def _fits_as_corners(box: Sequence[float], image: ImageEntry) -> bool:
    x1, y1, x2, y2 = box
    is_ordered = -_TOLERANCE <= x1 < x2 and -_TOLERANCE <= y1 < y2
    return is_ordered and x2 <= image.width + _TOLERANCE and y2 <= image.height + _TOLERANCE


def _reaches_outside(box: Sequence[float], image: ImageEntry) -> bool:
    x, y, width, height = box
    return x + width > (1 + _EXCESS) * image.width or y + height > (1 + _EXCESS) * image.height
