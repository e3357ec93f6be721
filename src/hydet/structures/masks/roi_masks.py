"""Soft masks relative to boxes, as a mask head predicts them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hydet.structures._pytree import register_tensor_container
from hydet.structures.boxes import Boxes

from .bit_masks import BitMasks
from .pasting import paste_masks_in_image
from .selection import Index, check_cat, match_boxes, select_masks

__all__ = ["ROIMasks"]


@register_tensor_container
class ROIMasks:
    """N soft masks, each relative to a box that is stored elsewhere.

    Args:
        tensor: ``(N, M, M)`` in [0, 1].

    Raises:
        ValueError: if the tensor does not have three dimensions.
    """

    tensor: Tensor

    def __init__(self, tensor: Tensor) -> None:
        if tensor.ndim != 3:
            raise ValueError(f"ROIMasks takes a tensor of shape (N, M, M), got {tuple(tensor.shape)}")
        self.tensor = tensor

    @property
    def device(self) -> torch.device:
        """Device of the masks."""
        return self.tensor.device

    def to(self, device: torch.device | str | int, non_blocking: bool = False) -> ROIMasks:
        """Return the masks on ``device``."""
        return ROIMasks(self.tensor.to(device=device, non_blocking=non_blocking))

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def __getitem__(self, item: Index) -> ROIMasks:
        """Select masks by an int (one mask), a slice, a bool mask or integer indices."""
        return ROIMasks(select_masks(self.tensor, item, "ROIMasks"))

    def __repr__(self) -> str:
        return f"ROIMasks({len(self)} masks of {tuple(self.tensor.shape[1:])})"

    @staticmethod
    def cat(masks_list: Sequence[ROIMasks]) -> ROIMasks:
        """Concatenate masks of one size.

        Raises:
            TypeError: if an element is not ``ROIMasks``.
            ValueError: if the list is empty.
        """
        check_cat(masks_list, ROIMasks)
        return ROIMasks(torch.cat([masks.tensor for masks in masks_list], dim=0))

    def to_bitmasks(self, boxes: Boxes | Tensor, height: int, width: int, threshold: float = 0.5) -> BitMasks:
        """Resample each mask over its box and threshold it.

        Args:
            boxes: N boxes in pixels of the image, which may reach over its border.
            height: height of the image in pixels.
            width: width of the image in pixels.
            threshold: a pixel is inside if the mask, resampled at the pixel's center, has at least this value.

        Returns:
            ``BitMasks`` of N masks of ``(height, width)``.

        Raises:
            ValueError: if the number of boxes differs from that of masks, or the threshold is negative.
        """
        if threshold < 0:
            raise ValueError(f"ROIMasks.to_bitmasks takes a threshold of at least 0, got {threshold}")
        corners = match_boxes(boxes, len(self), "ROIMasks")
        return BitMasks(paste_masks_in_image(self.tensor, corners, (height, width), threshold))
