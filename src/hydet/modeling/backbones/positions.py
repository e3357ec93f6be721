"""Absolute and relative positions of tokens in a grid, fitted to grids of any size."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["absolute_positions", "decomposed_bias", "relative_positions", "resize_grid"]


def absolute_positions(pos_embed: Tensor, has_cls_token: bool, size: tuple[int, int]) -> Tensor:
    """Learned positions of a square grid, resized (bicubic) to another.

    Args:
        pos_embed: ``(1, S * S, C)``, or one more in front for a class token, which is skipped.
        has_cls_token: whether there is that one more.
        size: height and width of the grid at hand.

    Returns:
        ``(1, *size, C)``.

    Raises:
        ValueError: if the positions are not those of a square.
    """
    if has_cls_token:
        pos_embed = pos_embed[:, 1:]
    side = math.isqrt(pos_embed.shape[1])
    if side * side != pos_embed.shape[1]:
        raise ValueError(f"{pos_embed.shape[1]} positions are not those of a square grid")
    grid = pos_embed.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    return resize_grid(grid, size).permute(0, 2, 3, 1)


def resize_grid(grid: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize ``(1, C, h, w)`` positions (bicubic), unless they have that ``size``."""
    if (grid.shape[2], grid.shape[3]) == tuple(size):
        return grid
    return F.interpolate(grid, size=size, mode="bicubic", align_corners=False)


def relative_positions(table: Tensor, q_size: int, k_size: int) -> Tensor:
    """Embeddings of the distances of queries and keys along one axis.

    Args:
        table: ``(L, C)``, from the most negative distance to the most positive one; resized (linearly) if the sizes
            at hand need another L.
        q_size: queries along the axis.
        k_size: keys along the same stretch of it.

    Returns:
        ``(q_size, k_size, C)``.

    Source: Li et al. 2021 (arXiv:2112.01526), section 4.1.
    """
    length = 2 * max(q_size, k_size) - 1
    if table.shape[0] != length:
        table = F.interpolate(table.t()[None], size=length, mode="linear")[0].t()
    q_place = torch.arange(q_size, device=table.device)[:, None]
    k_place = torch.arange(k_size, device=table.device)[None, :]
    if q_size == k_size:
        return table[q_place - k_place + (k_size - 1)]
    q_step, k_step = max(k_size / q_size, 1.0), max(q_size / k_size, 1.0)
    distance = q_place * q_step - k_place * k_step + (k_size - 1) * k_step  # rounded down below
    return table[distance.long()]


def decomposed_bias(
    q: Tensor, table_h: Tensor, table_w: Tensor, q_size: tuple[int, int], k_size: tuple[int, int]
) -> Tensor:
    """What relative positions add to the logits, as a sum of a vertical and a horizontal part.

    Args:
        q: ``(..., Qh * Qw, C)`` queries, not scaled.
        table_h: ``(L, C)`` for vertical distances.
        table_w: ``(L, C)`` for horizontal distances.
        q_size: ``(Qh, Qw)``.
        k_size: ``(Kh, Kw)``.

    Returns:
        ``(..., Qh * Qw, Kh * Kw)``.
    """
    grid = q.unflatten(-2, q_size)  # (..., Qh, Qw, C)
    down = relative_positions(table_h, q_size[0], k_size[0]).to(q.dtype)  # (Qh, Kh, C)
    across = relative_positions(table_w, q_size[1], k_size[1]).to(q.dtype)  # (Qw, Kw, C)
    bias_h = torch.matmul(grid, down.transpose(1, 2))  # (..., Qh, Qw, Kh)
    bias_w = torch.matmul(grid.transpose(-3, -2), across.transpose(1, 2)).transpose(
        -3, -2
    )  # (..., Qh, Qw, Kw)
    return (bias_h[..., :, None] + bias_w[..., None, :]).flatten(-2).flatten(-3, -2)
