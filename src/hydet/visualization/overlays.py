"""Coloured regions over a picture: masks of objects, semantic and panoptic maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from hydet.visualization.canvas import line_width
from hydet.visualization.palette import Color


def blend_mask_(picture: Tensor, mask: Tensor, color: Color, *, alpha: float, hatched: bool = False) -> None:
    """Tint the pixels of one mask and draw its contour, in place.

    Args:
        picture: uint8 ``(3, H, W)`` on the CPU.
        mask: ``(H, W)`` bool on the CPU.
        color: RGB.
        alpha: 0 leaves the picture alone, 1 hides it.
        hatched: tint diagonal stripes instead of everything.
    """
    rows, columns = mask.any(dim=1).nonzero().flatten(), mask.any(dim=0).nonzero().flatten()
    if rows.numel() == 0:
        return
    width = line_width(*mask.shape)
    top, bottom = max(int(rows[0]) - width, 0), int(rows[-1]) + 1 + width
    left, right = max(int(columns[0]) - width, 0), int(columns[-1]) + 1 + width
    window, inside = picture[:, top:bottom, left:right], mask[top:bottom, left:right]
    tint = torch.tensor(color, dtype=torch.float32)[:, None, None]
    rim = contour(inside, width)
    filled = inside
    if hatched:
        down = torch.arange(top, top + inside.shape[0])[:, None]
        across = torch.arange(left, left + inside.shape[1])
        filled = inside & ((down + across) // (3 * width) % 2 == 0)
    weight = torch.where(rim, max(alpha, 0.9), torch.where(filled, alpha, 0.0))
    window.copy_(window.float().lerp_(tint, weight).round_())


def contour(mask: Tensor, width: int) -> Tensor:
    """The pixels of an ``(H, W)`` bool mask less than ``width`` from its outside; the border is inside."""
    outside = (~mask).to(torch.uint8).cumsum(dim=1, dtype=torch.int32)  # of each row up to here
    near = _window_sums(outside, width) > 0
    outside = near.to(torch.uint8).cumsum(dim=0, dtype=torch.int32)
    return mask & (_window_sums(outside.T, width).T > 0)


def _window_sums(cumulated: Tensor, width: int) -> Tensor:
    """Sums over ``width`` places to either side, from sums along the last dimension."""
    size = cumulated.shape[-1]
    places = torch.arange(size)
    upto = cumulated[..., (places + width).clamp(max=size - 1)]
    before = F.pad(cumulated, (1, 0))[..., (places - width).clamp(min=0)]
    return upto - before


def blend_map(picture: Tensor, regions: Tensor, colors: Sequence[Color], *, alpha: float) -> Tensor:
    """Tint every region of a label map and darken the borders between regions.

    Args:
        picture: uint8 ``(3, H, W)`` on the CPU.
        regions: ``(H, W)`` int64 indices into ``colors``; others, such as -1 or 255, stay untinted.
        colors: RGB triples.
        alpha: 0 leaves the picture alone, 1 hides it.

    Returns:
        A new uint8 ``(3, H, W)``.
    """
    if len(colors) == 0:
        return picture.clone()
    known = (regions >= 0) & (regions < len(colors))
    table = torch.tensor(colors, dtype=torch.float32)  # (C, 3)
    tint = table[torch.where(known, regions, 0)].permute(2, 0, 1)  # (3, H, W)
    blended = picture + (tint - picture) * (alpha * known)
    width = max(1, line_width(*regions.shape) // 2)
    labels = torch.where(known, regions, -1).float()[None]
    spread = F.max_pool2d(labels, 2 * width + 1, stride=1, padding=width)
    spread = spread + F.max_pool2d(-labels, 2 * width + 1, stride=1, padding=width)
    border = (spread[0] > 0) & known
    return torch.where(border, 0.6 * blended, blended).round().clamp(0, 255).to(torch.uint8)


def middle_of(mask: Tensor) -> tuple[float, float]:
    """``(x, y)`` of a pixel well inside an ``(H, W)`` bool mask that is not empty."""
    step = max(1, max(mask.shape) // 128)
    coarse = F.avg_pool2d(mask.float()[None], step, ceil_mode=True, count_include_pad=False)
    depth = coarse.clone()
    for radius in (1, 3, 7, 15):
        depth += F.avg_pool2d(coarse, 2 * radius + 1, stride=1, padding=radius)
    row, column = divmod(int((depth * (coarse > 0))[0].argmax()), coarse.shape[-1])
    return (column + 0.5) * step, (row + 0.5) * step
