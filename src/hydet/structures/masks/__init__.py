"""Instance masks in three forms: bitmaps of the image, polygons, and soft masks relative to boxes."""

from .bit_masks import BitMasks
from .pasting import paste_masks_in_image
from .polygon_masks import PolygonMasks
from .rasterization import Polygons, polygons_to_bitmask, rasterize_polygons_within_box
from .roi_masks import ROIMasks

__all__ = [
    "BitMasks",
    "PolygonMasks",
    "Polygons",
    "ROIMasks",
    "paste_masks_in_image",
    "polygons_to_bitmask",
    "rasterize_polygons_within_box",
]
