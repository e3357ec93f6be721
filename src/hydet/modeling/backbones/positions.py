"""Absolute and relative position embeddings, resized to grids of any size."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "absolute_positions",
    "decomposed_bias",
    "make_absolute_positions",
    "make_relative_positions",
    "relative_positions",
    "resize_grid",
]


def make_absolute_positions(grid: tuple[int, int], channels: int, has_cls_token: bool) -> nn.Parameter:
    """Make learned position embeddings of a grid, from a truncated normal distribution with std 0.02.

    Args:
        grid: ``(height, width)`` of the grid.
        channels: channels of an embedding, C.
        has_cls_token: add an embedding of a class token in front.

    Returns:
        ``(1, height * width + has_cls_token, C)``.
    """
    positions = nn.Parameter(torch.zeros(1, grid[0] * grid[1] + int(has_cls_token), channels))
    nn.init.trunc_normal_(positions, std=0.02)
    return positions


def make_relative_positions(size: int, channels: int, *, zero_init: bool) -> nn.Parameter:
    """Make a table of embeddings of the distances along an axis.

    Args:
        size: tokens along the axis.
        channels: channels of an embedding, C.
        zero_init: initialize with zero instead of a truncated normal distribution with std 0.02.

    Returns:
        ``(2 * size - 1, C)``, from the most negative to the most positive distance.
    """
    table = nn.Parameter(torch.zeros(2 * size - 1, channels))
    if not zero_init:
        nn.init.trunc_normal_(table, std=0.02)
    return table


def absolute_positions(pos_embed: Tensor, has_cls_token: bool, size: tuple[int, int]) -> Tensor:
    """Resize (bicubic) the absolute position embeddings of a square grid.

    Args:
        pos_embed: ``(1, S * S, C)``, preceded by the embedding of a class token if ``has_cls_token``.
        has_cls_token: skip the first embedding.
        size: ``(height, width)`` of the new grid.

    Returns:
        ``(1, *size, C)``.

    Raises:
        ValueError: if the number of embeddings is not a square.
    """
    if has_cls_token:
        pos_embed = pos_embed[:, 1:]
    side = math.isqrt(pos_embed.shape[1])
    if side * side != pos_embed.shape[1]:
        raise ValueError(f"{pos_embed.shape[1]} position embeddings do not form a square grid")
    grid = pos_embed.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    return resize_grid(grid, size).permute(0, 2, 3, 1)


def resize_grid(grid: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (bicubic) ``(1, C, h, w)`` embeddings to ``size``; return them unchanged if they have that size."""
    if (grid.shape[2], grid.shape[3]) == tuple(size):
        return grid
    return F.interpolate(grid, size=size, mode="bicubic", align_corners=False)


def relative_positions(table: Tensor, q_size: int, k_size: int) -> Tensor:
    """Return embeddings of the distances between queries and keys along an axis.

    Args:
        table: ``(L, C)``, from the most negative to the most positive distance; resized (linear) if the sizes require
            another L.
        q_size: number of queries along the axis.
        k_size: number of keys along the axis.

    Returns:
        ``(q_size, k_size, C)``.

    Source: Li et al. 2021 (arXiv:2112.01526), section 4.1.
    """
    length = 2 * max(q_size, k_size) - 1
    if table.shape[0] != length:
        table = F.interpolate(table.t()[None], size=length, mode="linear")[0].t()
    q_index = torch.arange(q_size, device=table.device)[:, None]
    k_index = torch.arange(k_size, device=table.device)[None, :]
    if q_size == k_size:
        return table[q_index - k_index + (k_size - 1)]
    q_step, k_step = max(k_size / q_size, 1.0), max(q_size / k_size, 1.0)
    distance = q_index * q_step - k_index * k_step + (k_size - 1) * k_step  # rounded down by the cast
    return table[distance.long()]


def decomposed_bias(
    q: Tensor, table_h: Tensor, table_w: Tensor, q_size: tuple[int, int], k_size: tuple[int, int]
) -> Tensor:
    """Return the bias of relative positions on the logits, the sum of a vertical and a horizontal part.

    Args:
        q: ``(..., Qh * Qw, C)`` queries, not scaled.
        table_h: ``(L, C)`` embeddings of vertical distances.
        table_w: ``(L, C)`` embeddings of horizontal distances.
        q_size: grid of the queries, ``(Qh, Qw)``.
        k_size: grid of the keys, ``(Kh, Kw)``.

    Returns:
        ``(..., Qh * Qw, Kh * Kw)``.
    """
    grid = q.unflatten(-2, q_size)  # (..., Qh, Qw, C)
    vertical = relative_positions(table_h, q_size[0], k_size[0]).to(q.dtype)  # (Qh, Kh, C)
    horizontal = relative_positions(table_w, q_size[1], k_size[1]).to(q.dtype)  # (Qw, Kw, C)
    bias_h = torch.matmul(grid, vertical.transpose(1, 2))  # (..., Qh, Qw, Kh)
    bias_w = torch.matmul(grid.transpose(-3, -2), horizontal.transpose(1, 2))  # (..., Qw, Qh, Kw)
    bias_w = bias_w.transpose(-3, -2)  # (..., Qh, Qw, Kw)
    return (bias_h[..., :, None] + bias_w[..., None, :]).flatten(-2).flatten(-3, -2)
