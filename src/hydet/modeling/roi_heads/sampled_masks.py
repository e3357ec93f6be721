"""The masks of sampled proposals, of which many belong to the same object."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision.ops import roi_align

from hydet.structures import BitMasks, Boxes

__all__ = ["SampledBitMasks"]

CROP_PIXELS = 1 << 24  # how many bitmap pixels are turned into floats at a time (64 MiB)


class SampledBitMasks(BitMasks):
    """N masks that are picked, with repetition, out of M bitmaps.

    Hundreds of proposals share the bitmaps of a few objects, so the N bitmaps only come into being when somebody asks
    for ``tensor``. Cropping, which is what training does, reads the shared ones.

    Args:
        masks: M bitmaps.
        index: ``(N,)`` int64, which of them each mask is.
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
        return (self._bitmaps.shape[1], self._bitmaps.shape[2])

    @property
    def device(self) -> torch.device:
        return self._bitmaps.device

    def to(self, *args: Any, **kwargs: Any) -> SampledBitMasks:
        return SampledBitMasks(BitMasks(self._bitmaps.to(*args, **kwargs)), self._index)

    def __getitem__(self, item: int | slice | Tensor) -> SampledBitMasks:
        return SampledBitMasks(BitMasks(self._bitmaps), self._index[item].reshape(-1))

    def __len__(self) -> int:
        return self._index.shape[0]

    def crop_and_resize(self, boxes: Tensor | Boxes, mask_size: int) -> Tensor:
        corners = (boxes.tensor if isinstance(boxes, Boxes) else boxes).to(self.device)
        if corners.shape[0] != len(self):
            raise ValueError(f"{len(self)} masks need as many boxes, got {corners.shape[0]}")
        used, place = self._index.unique(return_inverse=True)
        step = max(1, CROP_PIXELS // max(self._bitmaps[0].numel(), 1)) if used.shape[0] else 1
        crops = corners.new_zeros((len(self), mask_size, mask_size), dtype=torch.bool)
        for start in range(0, used.shape[0], step):
            here = ((place >= start) & (place < start + step)).nonzero().squeeze(1)
            images = self._bitmaps[used[start : start + step], None].to(torch.float32)  # (m, 1, H, W)
            rois = torch.cat([(place[here, None] - start).to(corners), corners[here]], dim=1)
            crops[here] = roi_align(images, rois, mask_size, 1.0, 0, True)[:, 0] >= 0.5
        return crops
