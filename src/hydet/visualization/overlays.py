"""Tinted regions over an image: masks of objects, semantic and panoptic maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from hydet.visualization.canvas import line_width
from hydet.visualization.palette import Color

__all__ = ["blend_map", "blend_mask_", "center_of", "contour_of"]


def blend_mask_(image: Tensor, mask: Tensor, color: Color, *, alpha: float, hatched: bool = False) -> None:
    """Tint the pixels of one mask and draw its contour, in place.

    Args:
        image: uint8 ``(3, H, W)`` on the CPU.
        mask: ``(H, W)`` bool on the CPU.
        color: RGB color of the tint.
        alpha: opacity of the tint, in [0, 1].
        hatched: tint diagonal stripes instead of the whole mask.
    """
    rows, columns = mask.any(dim=1).nonzero().flatten(), mask.any(dim=0).nonzero().flatten()
    if rows.numel() == 0:
        return
    width = line_width(*mask.shape)
    top, bottom = max(int(rows[0]) - width, 0), int(rows[-1]) + 1 + width
    left, right = max(int(columns[0]) - width, 0), int(columns[-1]) + 1 + width
    window, inside = image[:, top:bottom, left:right], mask[top:bottom, left:right]
    tint = torch.tensor(color, dtype=torch.float32)[:, None, None]
    rim = contour_of(inside, width)
    filled = inside
    if hatched:
        down = torch.arange(top, top + inside.shape[0])[:, None]
        across = torch.arange(left, left + inside.shape[1])
        filled = inside & ((down + across) // (3 * width) % 2 == 0)
    weight = torch.where(rim, max(alpha, 0.9), torch.where(filled, alpha, 0.0))
    window.copy_(window.float().lerp_(tint, weight).round_())


def contour_of(mask: Tensor, width: int) -> Tensor:
    """Return the pixels of a mask that have a pixel outside of it within ``width`` rows and columns.

    Args:
        mask: ``(H, W)`` bool. Where it touches the border of the image it has no contour.
        width: width of the contour in pixels.

    Returns:
        ``(H, W)`` bool.
    """
    # Sums over windows are differences of cumulative sums, so the cost does not depend on the width.
    outside = (~mask).to(torch.uint8).cumsum(dim=1, dtype=torch.int32)
    near = _window_sums(outside, width) > 0
    outside = near.to(torch.uint8).cumsum(dim=0, dtype=torch.int32)
    return mask & (_window_sums(outside.T, width).T > 0)


def _window_sums(cumulative: Tensor, width: int) -> Tensor:
    """Sum over ``width`` positions to either side, given cumulative sums along the last dimension."""
    size = cumulative.shape[-1]
    positions = torch.arange(size)
    up_to_end = cumulative[..., (positions + width).clamp(max=size - 1)]
    before_start = F.pad(cumulative, (1, 0))[..., (positions - width).clamp(min=0)]
    return up_to_end - before_start


def blend_map(image: Tensor, regions: Tensor, colors: Sequence[Color], *, alpha: float) -> Tensor:
    """Tint each region of a label map and darken the borders between regions.

    Args:
        image: uint8 ``(3, H, W)`` on the CPU.
        regions: ``(H, W)`` int64 indices into ``colors``; pixels with another index are not tinted.
        colors: RGB color of each index.
        alpha: opacity of the tint, in [0, 1].

    Returns:
        A new uint8 ``(3, H, W)`` tensor.
    """
    if len(colors) == 0:
        return image.clone()
    known = (regions >= 0) & (regions < len(colors))
    table = torch.tensor(colors, dtype=torch.float32)  # (C, 3)
    tint = table[torch.where(known, regions, 0)].permute(2, 0, 1)  # (3, H, W)
    blended = image + (tint - image) * (alpha * known)
    width = max(1, line_width(*regions.shape) // 2)
    labels = torch.where(known, regions, -1).float()[None]
    # The largest minus the smallest label around each pixel.
    spread = F.max_pool2d(labels, 2 * width + 1, stride=1, padding=width)
    spread = spread + F.max_pool2d(-labels, 2 * width + 1, stride=1, padding=width)
    border = (spread[0] > 0) & known
    return torch.where(border, 0.6 * blended, blended).round().clamp(0, 255).to(torch.uint8)


def center_of(mask: Tensor) -> tuple[float, float]:
    """Return a point far inside a mask, where a label covers little else.

    Args:
        mask: ``(H, W)`` bool, not empty.

    Returns:
        ``(x, y)`` in pixels.
    """
    step = max(1, max(mask.shape) // 128)
    coarse = F.avg_pool2d(mask.float()[None], step, ceil_mode=True, count_include_pad=False)
    depth = coarse.clone()  # the more of the mask around a pixel, at several radii, the deeper inside it is
    for radius in (1, 3, 7, 15):
        depth += F.avg_pool2d(coarse, 2 * radius + 1, stride=1, padding=radius)
    row, column = divmod(int((depth * (coarse > 0))[0].argmax()), coarse.shape[-1])
    return (column + 0.5) * step, (row + 0.5) * step
