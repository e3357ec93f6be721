"""Masks as unions of polygons."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from hydet.structures.boxes import Boxes

from .rasterization import Polygons, rasterize_objects, scale_into_box
from .selection import check_cat, match_boxes

__all__ = ["PolygonMasks"]

Coordinates = Sequence[float] | np.ndarray | Tensor


class PolygonMasks:
    """The masks of N objects, each a union of polygons; kept in float64 on the CPU.

    Args:
        polygons: per object, a list of flat ``(x0, y0, x1, y1, ...)`` arrays, tensors or lists of numbers in pixels,
            with at least three points each. An object without polygons has an empty mask.

    Raises:
        TypeError: if ``polygons`` is not a list of lists.
        ValueError: if a polygon has fewer than three points, an odd number of values, or a value that is not finite.
    """

    polygons: list[Polygons]

    def __init__(self, polygons: Sequence[Sequence[Coordinates]]) -> None:
        if not isinstance(polygons, list | tuple):
            raise TypeError(f"PolygonMasks takes a list of lists of polygons, got {type(polygons).__name__}")
        for i, object_polygons in enumerate(polygons):
            if not isinstance(object_polygons, list | tuple):
                raise TypeError(
                    f"PolygonMasks: object {i} must be a list of polygons, got {type(object_polygons).__name__}"
                )
        self.polygons = [[_as_array(polygon, i) for polygon in group] for i, group in enumerate(polygons)]

    @classmethod
    def _from_checked(cls, polygons: list[Polygons]) -> Self:
        """Wrap polygons without checking them again."""
        masks = object.__new__(cls)
        masks.polygons = polygons
        return masks

    @property
    def device(self) -> torch.device:
        """Always the CPU."""
        return torch.device("cpu")

    def to(self, *args: Any, **kwargs: Any) -> PolygonMasks:
        """Return self: polygons stay on the CPU."""
        return self

    def get_bounding_boxes(self) -> Boxes:
        """Return tight boxes around the polygons, zeros for an object without polygons."""
        boxes = torch.zeros(len(self), 4)
        for box, polygons in zip(boxes, self.polygons):
            if polygons:
                points = np.concatenate(polygons).reshape(-1, 2)
                box[:2] = torch.from_numpy(points.min(axis=0))
                box[2:] = torch.from_numpy(points.max(axis=0))
        return Boxes(boxes)

    def nonempty(self) -> Tensor:
        """Return ``(N,)`` bool: True for objects with at least one polygon."""
        return torch.tensor([len(polygons) > 0 for polygons in self.polygons], dtype=torch.bool)

    def area(self) -> Tensor:
        """Return ``(N,)`` float64 areas in square pixels; overlapping polygons of one object count twice."""
        areas = [sum(map(_polygon_area, polygons)) for polygons in self.polygons]
        return torch.tensor(areas, dtype=torch.float64)

    def __getitem__(self, item: int | slice | Sequence[int] | Tensor | np.ndarray) -> PolygonMasks:
        """Select objects by an int (one object), a slice, a list of ints, a bool mask or integer indices."""
        if isinstance(item, slice):
            return self._from_checked(self.polygons[item])
        index = torch.as_tensor(item)
        if index.dtype == torch.bool:
            if index.shape != (len(self),):
                raise IndexError(
                    f"a bool mask of {len(self)} PolygonMasks has that length, got {tuple(index.shape)}"
                )
            index = index.nonzero()
        elif index.numel() > 0 and (index.is_floating_point() or index.ndim > 1):
            raise IndexError(f"PolygonMasks takes integer indices of one dimension, got {item!r}")
        return self._from_checked([self.polygons[i] for i in index.flatten().tolist()])

    def __iter__(self) -> Iterator[Polygons]:
        """Yield the list of polygons of each object."""
        return iter(self.polygons)

    def __len__(self) -> int:
        return len(self.polygons)

    def __repr__(self) -> str:
        return f"PolygonMasks({len(self)} objects)"

    def crop_and_resize(self, boxes: Tensor | Boxes, mask_size: int) -> Tensor:
        """Rasterize each object inside its box onto a square grid.

        Args:
            boxes: ``(N, 4)`` xyxy in pixels; sides shorter than 0.1 are treated as 0.1.
            mask_size: side of the grid.

        Returns:
            ``(N, mask_size, mask_size)`` bool on the device of ``boxes``.

        Raises:
            ValueError: if the number of boxes differs from that of objects.
        """
        boxes = match_boxes(boxes, len(self), "PolygonMasks")
        corners = boxes.detach().cpu().numpy()
        scaled = [scale_into_box(polygons, box, mask_size) for polygons, box in zip(self.polygons, corners)]
        return torch.from_numpy(rasterize_objects(scaled, mask_size, mask_size)).to(boxes.device)

    @staticmethod
    def cat(polymasks_list: Sequence[PolygonMasks]) -> PolygonMasks:
        """Concatenate the objects of several sets.

        Raises:
            TypeError: if an element is not ``PolygonMasks``.
            ValueError: if the list is empty.
        """
        check_cat(polymasks_list, PolygonMasks)
        return PolygonMasks._from_checked(
            [polygons for masks in polymasks_list for polygons in masks.polygons]
        )


def _as_array(polygon: Coordinates, object_index: int) -> np.ndarray:
    if isinstance(polygon, Tensor):
        polygon = polygon.cpu().numpy()
    array = np.asarray(polygon, dtype=np.float64)
    if array.ndim != 1 or len(array) < 6 or len(array) % 2 != 0:
        raise ValueError(
            f"PolygonMasks: a polygon of object {object_index} must be flat (x0, y0, x1, y1, ...) with at least "
            f"three points, got shape {array.shape}"
        )
    if not np.isfinite(array).all():
        raise ValueError(
            f"PolygonMasks: a polygon of object {object_index} has a coordinate that is not finite"
        )
    return array


def _polygon_area(polygon: np.ndarray) -> float:
    """Return the area by the shoelace formula."""
    x, y = polygon[0::2], polygon[1::2]
    return float(0.5 * abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))))
