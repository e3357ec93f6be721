"""Instance masks in three forms: bitmaps of the image, polygons, and soft masks relative to boxes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
import torch
from faster_coco_eval.core import mask as coco_mask
from torch import Tensor
from torchvision.ops import roi_align

from hydet.structures._pytree import register_tensor_container
from hydet.structures.boxes import Boxes

Polygons = list[
    np.ndarray
]  # one object: polygons as flat (x0, y0, x1, y1, ...) float64 arrays; their union counts
_CROP_PIXELS = 1 << 24  # how many bitmap pixels are turned into floats at a time (64 MiB)


def polygons_to_bitmask(polygons: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """Rasterise the union of polygons as COCO does.

    Args:
        polygons: flat ``(x0, y0, x1, y1, ...)`` arrays in pixels; none gives an empty mask.
        height: of the mask, in pixels.
        width: of the mask, in pixels.

    Returns:
        ``(height, width)`` bool array.

    Raises:
        ValueError: if a polygon has fewer than three points.
    """
    return _rasterize([polygons], height, width)[0]


def rasterize_polygons_within_box(polygons: Sequence[np.ndarray], box: np.ndarray, mask_size: int) -> Tensor:
    """Rasterise the part of polygons inside a box onto a square grid that spans the box.

    Args:
        polygons: flat ``(x0, y0, x1, y1, ...)`` arrays in pixels; left unchanged.
        box: ``(x1, y1, x2, y2)`` in pixels; a side below 0.1 counts as 0.1.
        mask_size: of the result.

    Returns:
        ``(mask_size, mask_size)`` bool tensor.

    Source: the training targets of He et al. 2017 (arXiv:1703.06870), section 3.1.
    """
    placed = _within_box(polygons, np.asarray(box), mask_size)
    return torch.from_numpy(_rasterize([placed], mask_size, mask_size)[0])


def _within_box(polygons: Sequence[np.ndarray], box: np.ndarray, mask_size: int) -> Polygons:
    """Move polygons into the frame in which ``box`` is ``mask_size`` wide and high."""
    scale = (mask_size / np.maximum(box[2:] - box[:2], 0.1)).astype(np.float64)
    points = (np.asarray(p, dtype=np.float64).reshape(-1, 2) for p in polygons)
    return [((xy - box[:2]) * scale).reshape(-1) for xy in points]


def _rasterize(instances: Sequence[Sequence[np.ndarray]], height: int, width: int) -> np.ndarray:
    """``(N, height, width)`` bool array of N objects, through run-length codes."""
    if len(instances) == 0:
        return np.zeros((0, height, width), dtype=bool)
    flat = [np.asarray(p, dtype=np.float64).reshape(-1).tolist() for p in itertools.chain(*instances)]
    short = next((len(p) for p in flat if len(p) < 6), None)
    if short is not None:  # the rasteriser would take it for a box
        raise ValueError(f"a polygon has at least three points (6 numbers), got one of {short} numbers")
    codes = iter(coco_mask.frPyObjects(flat, height, width) if flat else [])
    blank: Any = None
    runs = []
    for polygons in instances:
        own = list(itertools.islice(codes, len(polygons)))
        if not own and blank is None:
            blank = coco_mask.encode(np.zeros((height, width), dtype=np.uint8, order="F"))
        runs.append(blank if not own else own[0] if len(own) == 1 else coco_mask.merge(own))
    masks = coco_mask.decode(runs)  # (height, width, N)
    return np.ascontiguousarray(masks.transpose(2, 0, 1)).astype(bool)


@register_tensor_container
class BitMasks:
    """The masks of N objects, each a bitmap of the whole image.

    Args:
        tensor: ``(N, H, W)``, bool or convertible to it (non-zero is inside).

    Raises:
        ValueError: if there are not three dimensions.
    """

    tensor: Tensor

    def __init__(self, tensor: Tensor | np.ndarray) -> None:
        tensor = torch.as_tensor(tensor).to(torch.bool)
        if tensor.ndim != 3:
            raise ValueError(f"BitMasks takes a tensor of shape (N, H, W), got {tuple(tensor.shape)}")
        self.tensor = tensor

    @property
    def image_size(self) -> tuple[int, int]:
        """``(H, W)`` in pixels."""
        return (self.tensor.shape[1], self.tensor.shape[2])

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def to(self, *args: Any, **kwargs: Any) -> BitMasks:
        """Return the masks after ``tensor.to(*args, **kwargs)``; they stay bool."""
        return BitMasks(self.tensor.to(*args, **kwargs))

    def pin_memory(self) -> BitMasks:
        """Return the masks in page-locked memory, for data loaders."""
        return BitMasks(self.tensor.pin_memory())

    def __getitem__(self, item: int | slice | Tensor) -> BitMasks:
        """Select masks by an int (one mask), a slice, a bool mask or integer indices."""
        return BitMasks(_select_3d(self.tensor, item, "BitMasks"))

    def __iter__(self) -> Iterator[Tensor]:
        """Yield one ``(H, W)`` bool tensor per object."""
        yield from self.tensor

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def __repr__(self) -> str:
        return f"BitMasks({len(self)} masks, image_size={self.image_size})"

    def nonempty(self) -> Tensor:
        """``(N,)`` bool: masks with at least one pixel."""
        return self.tensor.flatten(1).any(dim=1)

    @staticmethod
    def from_polygon_masks(
        polygon_masks: PolygonMasks | Sequence[Sequence[np.ndarray]], height: int, width: int
    ) -> BitMasks:
        """Rasterise polygons over an image of ``height`` x ``width`` pixels.

        Args:
            polygon_masks: per object the polygons whose union is its mask; an object without any is empty.
            height: of the image.
            width: of the image.
        """
        polygons = polygon_masks.polygons if isinstance(polygon_masks, PolygonMasks) else polygon_masks
        return BitMasks(torch.from_numpy(_rasterize(polygons, height, width)))

    @staticmethod
    def from_roi_masks(
        roi_masks: ROIMasks,
        height: int,
        width: int,
        *,
        boxes: Boxes | Tensor | None = None,
        threshold: float = 0.5,
    ) -> BitMasks:
        """Paste box masks into an image of ``height`` x ``width`` pixels.

        Args:
            roi_masks: N soft masks.
            height: of the image.
            width: of the image.
            boxes: the N boxes that the masks cover; None means that each covers the whole image.
            threshold: see :meth:`ROIMasks.to_bitmasks`.
        """
        if boxes is None:
            whole = roi_masks.tensor.new_tensor([0, 0, width, height], dtype=torch.float32)
            boxes = whole.expand(len(roi_masks), 4)
        return roi_masks.to_bitmasks(boxes, height, width, threshold)

    def crop_and_resize(self, boxes: Tensor | Boxes, mask_size: int) -> Tensor:
        """Crop the i-th mask by the i-th box and resample it to a square.

        Args:
            boxes: ``(N, 4)`` xyxy in pixels of the masks.
            mask_size: of the result.

        Returns:
            ``(N, mask_size, mask_size)`` bool: at least half of a bin's average is inside. The average is an
            aligned RoIAlign with as many samples per bin as the box has pixels.

        Raises:
            ValueError: if the number of boxes differs from that of masks.
        """
        boxes = _matching_boxes(boxes, len(self), "BitMasks").to(self.device)
        count, height, width = self.tensor.shape
        step = max(1, _CROP_PIXELS // max(height * width, 1))
        crops = [boxes.new_zeros((0, mask_size, mask_size), dtype=torch.bool)]
        for start in range(0, count, step):
            part = boxes[start : start + step]
            index = torch.arange(part.shape[0], device=part.device, dtype=part.dtype)
            images = self.tensor[start : start + step, None].to(torch.float32)  # (n, 1, H, W)
            rois = torch.cat([index[:, None], part], dim=1)
            crops.append(roi_align(images, rois, mask_size, 1.0, 0, True)[:, 0] >= 0.5)
        return torch.cat(crops, dim=0)

    def get_bounding_boxes(self) -> Boxes:
        """Tight boxes around the masks: from the first pixel inside to one past the last; zeros if empty."""
        across, down = self.tensor.any(dim=1), self.tensor.any(dim=2)  # (N, W), (N, H)
        (x1, x2), (y1, y2) = _extent(across), _extent(down)
        boxes = torch.stack([x1, y1, x2, y2], dim=1).to(torch.float32)
        return Boxes(boxes * across.any(dim=1, keepdim=True))

    @staticmethod
    def cat(bitmasks_list: Sequence[BitMasks]) -> BitMasks:
        """Join masks of one image size.

        Raises:
            TypeError: if an element is not ``BitMasks``.
            ValueError: if there is none.
        """
        _check_cat(bitmasks_list, BitMasks)
        return BitMasks(torch.cat([masks.tensor for masks in bitmasks_list], dim=0))


class PolygonMasks:
    """The masks of N objects, each the union of polygons; kept in float64 on the CPU.

    Args:
        polygons: per object a list of flat ``(x0, y0, x1, y1, ...)`` arrays (or tensors, or lists of numbers)
            in pixels, of at least three points each. An object without polygons has an empty mask.

    Raises:
        TypeError: if the nesting differs.
        ValueError: if a polygon has fewer than three points, half a point, or a coordinate that is not finite.
    """

    polygons: list[Polygons]

    def __init__(self, polygons: Sequence[Sequence[Any]]) -> None:
        if not isinstance(polygons, list | tuple):
            raise TypeError(f"PolygonMasks takes a list of lists of polygons, got {type(polygons).__name__}")
        for i, one in enumerate(polygons):
            if not isinstance(one, list | tuple):
                raise TypeError(
                    f"PolygonMasks: object {i} must be a list of polygons, got {type(one).__name__}"
                )
        self.polygons = [[_as_polygon(p, i) for p in one] for i, one in enumerate(polygons)]

    @classmethod
    def _of(cls, polygons: list[Polygons]) -> Self:
        """Wrap polygons that have been checked already."""
        masks = object.__new__(cls)
        masks.polygons = polygons
        return masks

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def to(self, *args: Any, **kwargs: Any) -> PolygonMasks:
        """Return itself: polygons stay on the CPU."""
        return self

    def get_bounding_boxes(self) -> Boxes:
        """Tight boxes around the polygons, zeros for an object without any."""
        boxes = torch.zeros(len(self), 4)
        for box, polygons in zip(boxes, self.polygons):
            if polygons:
                points = np.concatenate(polygons).reshape(-1, 2)
                box[:2] = torch.from_numpy(points.min(axis=0))
                box[2:] = torch.from_numpy(points.max(axis=0))
        return Boxes(boxes)

    def nonempty(self) -> Tensor:
        """``(N,)`` bool: objects with at least one polygon."""
        return torch.tensor([len(polygons) > 0 for polygons in self.polygons], dtype=torch.bool)

    def area(self) -> Tensor:
        """``(N,)`` float64 areas in square pixels; where polygons of one object overlap, both count."""
        return torch.tensor([sum(map(_polygon_area, one)) for one in self.polygons], dtype=torch.float64)

    def __getitem__(self, item: int | slice | Sequence[int] | Tensor | np.ndarray) -> PolygonMasks:
        """Select objects by an int (one object), a slice, a list of ints, a bool mask or integer indices."""
        if isinstance(item, slice):
            return self._of(self.polygons[item])
        index = torch.as_tensor(item)
        if index.dtype == torch.bool:
            if index.shape != (len(self),):
                raise IndexError(
                    f"a bool mask of {len(self)} PolygonMasks has that length, got {tuple(index.shape)}"
                )
            index = index.nonzero()
        elif index.numel() > 0 and (index.is_floating_point() or index.ndim > 1):
            raise IndexError(f"PolygonMasks takes integer indices of one dimension, got {item!r}")
        return self._of([self.polygons[i] for i in index.flatten().tolist()])

    def __iter__(self) -> Iterator[Polygons]:
        """Yield the list of polygons of each object."""
        return iter(self.polygons)

    def __len__(self) -> int:
        return len(self.polygons)

    def __repr__(self) -> str:
        return f"PolygonMasks({len(self)} objects)"

    def crop_and_resize(self, boxes: Tensor | Boxes, mask_size: int) -> Tensor:
        """Rasterise the i-th object inside the i-th box onto a square grid.

        Args:
            boxes: ``(N, 4)`` xyxy in pixels; sides below 0.1 count as 0.1.
            mask_size: of the result.

        Returns:
            ``(N, mask_size, mask_size)`` bool on the device of ``boxes``.

        Raises:
            ValueError: if the number of boxes differs from that of objects.
        """
        boxes = _matching_boxes(boxes, len(self), "PolygonMasks")
        corners = boxes.detach().cpu().numpy()
        placed = [_within_box(one, box, mask_size) for one, box in zip(self.polygons, corners)]
        return torch.from_numpy(_rasterize(placed, mask_size, mask_size)).to(boxes.device)

    @staticmethod
    def cat(polymasks_list: Sequence[PolygonMasks]) -> PolygonMasks:
        """Join the objects of several sets.

        Raises:
            TypeError: if an element is not ``PolygonMasks``.
            ValueError: if there is none.
        """
        _check_cat(polymasks_list, PolygonMasks)
        return PolygonMasks._of([one for masks in polymasks_list for one in masks.polygons])


@register_tensor_container
class ROIMasks:
    """N soft masks, each relative to a box that is kept elsewhere: what a mask head predicts.

    Args:
        tensor: ``(N, M, M)`` in [0, 1].

    Raises:
        ValueError: if there are not three dimensions.
    """

    tensor: Tensor

    def __init__(self, tensor: Tensor) -> None:
        if tensor.ndim != 3:
            raise ValueError(f"ROIMasks takes a tensor of shape (N, M, M), got {tuple(tensor.shape)}")
        self.tensor = tensor

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def to(self, device: torch.device | str | int, non_blocking: bool = False) -> ROIMasks:
        """Return the masks on ``device``."""
        return ROIMasks(self.tensor.to(device=device, non_blocking=non_blocking))

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def __getitem__(self, item: int | slice | Tensor) -> ROIMasks:
        """Select masks by an int (one mask), a slice, a bool mask or integer indices."""
        return ROIMasks(_select_3d(self.tensor, item, "ROIMasks"))

    def __repr__(self) -> str:
        return f"ROIMasks({len(self)} masks of {tuple(self.tensor.shape[1:])})"

    @staticmethod
    def cat(masks_list: Sequence[ROIMasks]) -> ROIMasks:
        """Join masks of one size.

        Raises:
            TypeError: if an element is not ``ROIMasks``.
            ValueError: if there is none.
        """
        _check_cat(masks_list, ROIMasks)
        return ROIMasks(torch.cat([masks.tensor for masks in masks_list], dim=0))

    def to_bitmasks(self, boxes: Boxes | Tensor, height: int, width: int, threshold: float = 0.5) -> BitMasks:
        """Resample each mask over its box and threshold it.

        Args:
            boxes: N boxes in pixels of the image, possibly reaching beyond it.
            height: of the image.
            width: of the image.
            threshold: a pixel is inside if the resampled mask is at least this much at its centre.

        Returns:
            ``BitMasks`` of N masks of ``(height, width)``.

        Raises:
            ValueError: if the number of boxes differs from that of masks, or the threshold is negative.
        """
        from hydet.layers.mask_ops import (
            paste_masks_in_image,
        )  # layers stand on structures, so not at the top

        if threshold < 0:
            raise ValueError(f"ROIMasks.to_bitmasks takes a threshold of at least 0, got {threshold}")
        corners = _matching_boxes(boxes, len(self), "ROIMasks")
        return BitMasks(paste_masks_in_image(self.tensor, corners, (height, width), threshold))


def _matching_boxes(boxes: Boxes | Tensor, count: int, owner: str) -> Tensor:
    corners = boxes.tensor if isinstance(boxes, Boxes) else boxes
    if corners.shape[0] != count:
        raise ValueError(f"{owner}: {count} masks need as many boxes, got {corners.shape[0]}")
    return corners


def _select_3d(tensor: Tensor, item: Any, owner: str) -> Tensor:
    found = tensor[item]
    if found.ndim == 2:  # an int, or a tensor without dimensions
        found = found.unsqueeze(0)
    if found.ndim != 3:
        raise ValueError(f"indexing {owner} with {item!r} gives a tensor of {found.ndim} dimensions")
    return found


def _check_cat(masks_list: Sequence[Any], cls: type) -> None:
    if len(masks_list) == 0:
        raise ValueError(f"{cls.__name__}.cat takes at least one {cls.__name__}, got none")
    for masks in masks_list:
        if not isinstance(masks, cls):
            raise TypeError(
                f"{cls.__name__}.cat takes {cls.__name__}, got a {type(masks).__name__} among them"
            )


def _extent(occupied: Tensor) -> tuple[Tensor, Tensor]:
    """First occupied index and one past the last along the second dimension; undefined if none is."""
    places = torch.arange(occupied.shape[1], device=occupied.device)
    size = occupied.shape[1]
    first = torch.where(occupied, places, size)
    last = torch.where(occupied, places, -1)
    if size == 0:
        return (occupied.new_zeros(occupied.shape[0], dtype=torch.int64),) * 2
    return first.amin(dim=1), last.amax(dim=1) + 1


def _as_polygon(polygon: Any, instance: int) -> np.ndarray:
    if isinstance(polygon, Tensor):
        polygon = polygon.cpu().numpy()
    array = np.asarray(polygon, dtype=np.float64)
    if array.ndim != 1 or len(array) < 6 or len(array) % 2 != 0:
        raise ValueError(
            f"PolygonMasks: a polygon of object {instance} must be flat (x0, y0, x1, y1, ...) with at least "
            f"three points, got shape {array.shape}"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"PolygonMasks: a polygon of object {instance} has a coordinate that is not finite")
    return array


def _polygon_area(polygon: np.ndarray) -> float:
    x, y = polygon[0::2], polygon[1::2]
    return float(0.5 * abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))))
