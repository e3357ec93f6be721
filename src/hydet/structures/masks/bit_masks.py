"""Masks as bitmaps of the whole image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import roi_align

from hydet.structures._pytree import register_tensor_container
from hydet.structures.boxes import Boxes

from .polygon_masks import PolygonMasks
from .rasterization import rasterize_objects
from .selection import Index, check_cat, match_boxes, select_masks

if TYPE_CHECKING:
    from .roi_masks import ROIMasks

__all__ = ["BitMasks"]

_CROP_PIXELS = 1 << 24  # bitmap pixels converted to float at a time (64 MiB)


@register_tensor_container
class BitMasks:
    """The masks of N objects, each a bitmap of the whole image.

    Args:
        tensor: ``(N, H, W)``, bool or convertible to it (non-zero is inside).

    Raises:
        ValueError: if the tensor does not have three dimensions.
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
        """Device of the masks."""
        return self.tensor.device

    def to(self, *args: Any, **kwargs: Any) -> BitMasks:
        """Return the masks after ``tensor.to(*args, **kwargs)``; they stay bool."""
        return BitMasks(self.tensor.to(*args, **kwargs))

    def pin_memory(self) -> BitMasks:
        """Return the masks in page-locked memory, for data loaders."""
        return BitMasks(self.tensor.pin_memory())

    def __getitem__(self, item: Index) -> BitMasks:
        """Select masks by an int (one mask), a slice, a bool mask or integer indices."""
        return BitMasks(select_masks(self.tensor, item, "BitMasks"))

    def __iter__(self) -> Iterator[Tensor]:
        """Yield one ``(H, W)`` bool tensor per object."""
        yield from self.tensor

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def __repr__(self) -> str:
        return f"BitMasks({len(self)} masks, image_size={self.image_size})"

    def nonempty(self) -> Tensor:
        """Return ``(N,)`` bool: True for masks with at least one pixel."""
        return self.tensor.flatten(1).any(dim=1)

    @staticmethod
    def from_polygon_masks(
        polygon_masks: PolygonMasks | Sequence[Sequence[np.ndarray]], height: int, width: int
    ) -> BitMasks:
        """Rasterize polygons over an image of ``height`` x ``width`` pixels.

        Args:
            polygon_masks: per object, the polygons whose union is its mask; an object without polygons is empty.
            height: height of the image in pixels.
            width: width of the image in pixels.
        """
        polygons = polygon_masks.polygons if isinstance(polygon_masks, PolygonMasks) else polygon_masks
        return BitMasks(torch.from_numpy(rasterize_objects(polygons, height, width)))

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
            height: height of the image in pixels.
            width: width of the image in pixels.
            boxes: the N boxes that the masks cover; None means that each mask covers the whole image.
            threshold: see :meth:`ROIMasks.to_bitmasks`.
        """
        if boxes is None:
            image_box = roi_masks.tensor.new_tensor([0, 0, width, height], dtype=torch.float32)
            boxes = image_box.expand(len(roi_masks), 4)
        return roi_masks.to_bitmasks(boxes, height, width, threshold)

    def crop_and_resize(self, boxes: Tensor | Boxes, mask_size: int) -> Tensor:
        """Crop each mask by its box and resample the crop to a square.

        Args:
            boxes: ``(N, 4)`` xyxy in pixels of the masks.
            mask_size: side of the result.

        Returns:
            ``(N, mask_size, mask_size)`` bool: True where at least half of a bin is inside. A bin is averaged by an
            aligned RoIAlign with one sample per pixel of the box.

        Raises:
            ValueError: if the number of boxes differs from that of masks.
        """
        boxes = match_boxes(boxes, len(self), "BitMasks").to(self.device)
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
        """Return tight boxes, from the first pixel inside to one past the last; zeros for empty masks."""
        columns, rows = self.tensor.any(dim=1), self.tensor.any(dim=2)  # (N, W), (N, H)
        (x1, x2), (y1, y2) = _extent(columns), _extent(rows)
        boxes = torch.stack([x1, y1, x2, y2], dim=1).to(torch.float32)
        return Boxes(boxes * columns.any(dim=1, keepdim=True))

    @staticmethod
    def cat(bitmasks_list: Sequence[BitMasks]) -> BitMasks:
        """Concatenate masks of one image size.

        Raises:
            TypeError: if an element is not ``BitMasks``.
            ValueError: if the list is empty.
        """
        check_cat(bitmasks_list, BitMasks)
        return BitMasks(torch.cat([masks.tensor for masks in bitmasks_list], dim=0))


def _extent(occupied: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first True index of each row and one past the last; undefined for rows without True."""
    size = occupied.shape[1]
    if size == 0:
        return (occupied.new_zeros(occupied.shape[0], dtype=torch.int64),) * 2
    index = torch.arange(size, device=occupied.device)
    first = torch.where(occupied, index, size)
    last = torch.where(occupied, index, -1)
    return first.amin(dim=1), last.amax(dim=1) + 1
