"""Regions of objects between a record and the masks of a model input."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from hydet.data.annotations.polygons import clip_polygon, mask_to_polygons, rasterize_polygons
from hydet.data.datasets.record import Record, segment_to_mask
from hydet.structures import BitMasks, PolygonMasks

__all__ = ["MaskFormat", "Regions", "select_regions"]

MaskFormat = Literal["bitmask", "polygon"]


@dataclasses.dataclass(frozen=True)
class Regions:
    """Regions of N objects: polygons, which transforms move exactly, or bitmaps where an object has no polygons.

    Args:
        polygons: polygons of each object, flat ``(x0, y0, x1, y1, ...)`` arrays in pixels; none for an object with a
            bitmap, and for an object without a region.
        bitmap_rows: index of the object of each bitmap.
        bitmaps: ``(len(bitmap_rows), H, W)`` uint8, or None if no object has a bitmap.
    """

    polygons: list[list[np.ndarray]]
    bitmap_rows: list[int] = dataclasses.field(default_factory=list)
    bitmaps: Tensor | None = None

    def vertices(self) -> np.ndarray:
        """Return the vertices of all polygons in order, ``(V, 2)`` float64 as (x, y)."""
        arrays = [np.asarray(polygon, dtype=np.float64) for polygon in itertools.chain(*self.polygons)]
        return np.concatenate([np.zeros((0, 2)), *(array.reshape(-1, 2) for array in arrays)])

    def moved(self, vertices: np.ndarray, bitmaps: Tensor | None) -> Regions:
        """Return a copy with other coordinates.

        Args:
            vertices: ``(V, 2)``, in the order of :meth:`vertices`.
            bitmaps: bitmaps in the new frame, or None if there are none.
        """
        ends = np.cumsum([len(polygon) // 2 for polygon in itertools.chain(*self.polygons)])
        arrays = iter(np.split(vertices, ends[:-1]))
        polygons = [
            [np.ascontiguousarray(next(arrays)).reshape(-1) for _ in polygons] for polygons in self.polygons
        ]
        return Regions(polygons, self.bitmap_rows, bitmaps)

    def to_polygon_masks(self, height: int, width: int) -> PolygonMasks:
        """Clip the polygons to an image, and drop those outside."""
        clipped = [[clip_polygon(p, height, width) for p in polygons] for polygons in self.polygons]
        return PolygonMasks([[p for p in polygons if len(p)] for polygons in clipped])

    def to_bitmasks(self, height: int, width: int) -> BitMasks:
        """Rasterize the polygons and join them with the bitmaps; an object without a region has an empty mask."""
        if self.bitmaps is not None and len(self.bitmap_rows) == len(self.polygons):
            return BitMasks(self.bitmaps)
        masks = BitMasks(torch.from_numpy(rasterize_polygons(self.polygons, height, width)))
        if self.bitmaps is not None:
            masks.tensor[self.bitmap_rows] = self.bitmaps.bool()
        return masks


def select_regions(record: Record, rows: Tensor, mask_format: MaskFormat) -> Regions:
    """Select the regions of some objects of a record.

    Args:
        record: record with ``masks`` or ``segments``; not modified.
        rows: ``(N,)`` indices of the objects.
        mask_format: ``"bitmask"`` prefers the record's own bitmaps and keeps polygons as they are; ``"polygon"``
            traces run-length codes.

    Raises:
        ValueError: if the record has no regions.
    """
    if mask_format == "bitmask" and record.masks is not None:
        objects = list(range(len(rows)))
        return Regions([[] for _ in objects], objects, record.masks[rows].view(torch.uint8))
    if record.segments is None:
        raise ValueError(f"{record.file_name}: masks are required, but the dataset has none")
    height, width = record.image.shape[1:]
    polygons: list[list[np.ndarray]] = []
    bitmaps: dict[int, np.ndarray] = {}
    for i, row in enumerate(rows.tolist()):
        segment = record.segments[int(row)]
        if not isinstance(segment, Mapping):
            polygons.append(list(segment or ()))
        elif mask_format == "polygon":
            polygons.append(mask_to_polygons(segment_to_mask(segment, height, width)))
        else:
            polygons.append([])
            bitmaps[i] = segment_to_mask(segment, height, width)
    if not bitmaps:
        return Regions(polygons)
    stacked = np.stack(list(bitmaps.values())).view(np.uint8)
    return Regions(polygons, list(bitmaps), torch.from_numpy(stacked))
