"""Masks of sampled proposals, many of which share the mask of one object."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision.ops import roi_align

from hydet.structures import BitMasks, Boxes

__all__ = ["SampledBitMasks"]

CROP_PIXELS = 1 << 24  # bitmap pixels that are converted to float at a time: 64 MiB of float32


class SampledBitMasks(BitMasks):
    """N masks selected, with repetition, from M bitmaps.

    Hundreds of proposals share the bitmaps of a few objects. The N bitmaps are only created by ``tensor``; cropping,
    which training uses, reads the shared ones.

    Args:
        masks: M bitmaps.
        index: ``(N,)`` int64, index of the bitmap of each mask.
    """

    def __init__(self, masks: BitMasks, index: Tensor) -> None:
        self._bitmaps = masks.tensor
        self._index = index.to(masks.tensor.device)

    @property
    def tensor(self) -> Tensor:  # type: ignore[override]
        """``(N, H, W)`` bool."""
        return self._bitmaps[self._index]

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return (self._bitmaps.shape[1], self._bitmaps.shape[2])

    @property
    def device(self) -> torch.device:
        """Device of the bitmaps."""
        return self._bitmaps.device

    def to(self, *args: Any, **kwargs: Any) -> SampledBitMasks:
        """Return the masks after ``Tensor.to(*args, **kwargs)`` of the bitmaps."""
        return SampledBitMasks(BitMasks(self._bitmaps.to(*args, **kwargs)), self._index)

    def __getitem__(self, item: int | slice | Tensor) -> SampledBitMasks:
        """Select masks by an int (one mask, still as ``SampledBitMasks``), a slice, a bool mask or indices."""
        return SampledBitMasks(BitMasks(self._bitmaps), self._index[item].reshape(-1))

    def __len__(self) -> int:
        """Return N."""
        return self._index.shape[0]

    def crop_and_resize(self, boxes: Tensor | Boxes, mask_size: int) -> Tensor:
        """Crop each mask to its box; see ``BitMasks.crop_and_resize``.

        Args:
            boxes: ``(N, 4)``.
            mask_size: S, side of the crops in cells.

        Returns:
            ``(N, S, S)`` bool.

        Raises:
            ValueError: if the number of boxes is not N.
        """
        corners = (boxes.tensor if isinstance(boxes, Boxes) else boxes).to(self.device)
        if corners.shape[0] != len(self):
            raise ValueError(f"{len(self)} masks need as many boxes, got {corners.shape[0]}")
        used, position = self._index.unique(return_inverse=True)  # used[position] is self._index
        step = max(1, CROP_PIXELS // max(self._bitmaps[0].numel(), 1)) if used.shape[0] else 1
        crops = corners.new_zeros((len(self), mask_size, mask_size), dtype=torch.bool)
        for start in range(0, used.shape[0], step):
            in_step = ((position >= start) & (position < start + step)).nonzero().squeeze(1)
            bitmaps = self._bitmaps[used[start : start + step], None].to(torch.float32)  # (m, 1, H, W)
            rois = torch.cat([(position[in_step, None] - start).to(corners), corners[in_step]], dim=1)
            crops[in_step] = roi_align(bitmaps, rois, mask_size, 1.0, 0, True)[:, 0] >= 0.5
        return crops
