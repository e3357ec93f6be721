"""Resizing of images, masks and label maps, shared by augmentation, test-time augmentation and drawing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

__all__ = ["resize_nearest", "resize_with_pillow", "shortest_edge_size"]


def shortest_edge_size(height: int, width: int, short: int, max_size: int | None) -> tuple[int, int]:
    """Return the size that makes the shorter side ``short`` and keeps the aspect ratio.

    Args:
        height: height of the image in pixels.
        width: width of the image in pixels.
        short: length of the shorter side in pixels.
        max_size: bound of the longer side in pixels; both sides shrink if it would exceed the bound. None for no bound.

    Returns:
        ``(height, width)``, rounded half up as detectron2 does, each at least 1.
    """
    scale = short / min(height, width)
    new_height, new_width = (short, scale * width) if height < width else (scale * height, short)
    if max_size is not None and max(new_height, new_width) > max_size:
        scale = max_size / max(new_height, new_width)
        new_height, new_width = new_height * scale, new_width * scale
    return max(int(new_height + 0.5), 1), max(int(new_width + 0.5), 1)


def resize_with_pillow(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize 8-bit channels with Pillow's antialiased bilinear filter.

    Published weights were trained and evaluated with this filter. torchvision's 8-bit kernel rounds a few pixels in a
    thousand the other way.

    Args:
        image: ``(..., C, H, W)`` uint8.
        size: ``(height, width)`` of the result in pixels.

    Returns:
        ``(..., C, height, width)`` uint8 on the device of ``image``.
    """
    if image.ndim > 3:
        resized = torch.stack([resize_with_pillow(item, size) for item in image.flatten(0, -4)])
        return resized.reshape(*image.shape[:-2], *size)
    width_height = size[::-1]
    if image.shape[0] == 3:  # Pillow resizes three channels at once faster than one by one
        interleaved = Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy())  # (H, W, 3)
        pixels = np.array(interleaved.resize(width_height, Image.Resampling.BILINEAR))
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous().to(image.device)
    channels = [
        np.array(Image.fromarray(channel).resize(width_height, Image.Resampling.BILINEAR))
        for channel in image.cpu().numpy()
    ]
    return torch.from_numpy(np.stack(channels)).to(image.device)


def resize_nearest(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Resize masks or label maps by nearest-neighbor sampling, in any dtype, exactly as Pillow does.

    Args:
        maps: ``(..., H, W)``.
        size: ``(height, width)`` of the result in pixels.

    Returns:
        ``(..., height, width)`` in the dtype of ``maps``; ``maps`` itself if it has that size.
    """
    if maps.shape[-2:] == tuple(size):
        return maps
    rows, columns = (
        torch.from_numpy(_nearest_positions(old, new)).to(maps.device)
        for new, old in zip(size, maps.shape[-2:], strict=True)
    )
    return maps[..., rows[:, None], columns]


def _nearest_positions(old: int, new: int) -> np.ndarray:
    """Return for each of ``new`` target pixels the source pixel under its center, ``(new,)`` int64 in [0, old)."""
    # Pillow adds the step up in float64. A product instead of the sum rounds differently where a center lies on the
    # border of two source pixels, which is every third row at a factor of 1.5.
    steps = np.full(new, old / new)
    steps[0] *= 0.5
    return np.minimum(np.cumsum(steps).astype(np.int64), old - 1)
