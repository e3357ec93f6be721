"""Cutting a grid of tokens into windows, and putting it together again."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["merge_windows", "pad_to_multiple", "split_windows"]

# B images, C channels, a grid of H x W tokens, windows of w x w, n of them in an image.


def pad_to_multiple(x: Tensor, size: int) -> Tensor:
    """Zeros at the right and bottom of ``(B, H, W, C)``, until ``size`` divides H and W."""
    bottom, right = -x.shape[1] % size, -x.shape[2] % size
    return F.pad(x, (0, 0, 0, right, 0, bottom))


def split_windows(x: Tensor, size: int) -> Tensor:
    """Cut a grid, which ``size`` must divide.

    Args:
        x: ``(B, H, W, C)``.
        size: w.

    Returns:
        ``(B * n, w, w, C)``, image by image and row by row.
    """
    batch, height, width, channels = x.shape
    x = x.view(batch, height // size, size, width // size, size, channels)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, size, size, channels)


def merge_windows(windows: Tensor, size: int, padded: tuple[int, int], kept: tuple[int, int]) -> Tensor:
    """Undo ``split_windows``, then ``pad_to_multiple``.

    Args:
        windows: ``(B * n, w, w, C)``.
        size: w.
        padded: height and width that were cut.
        kept: height and width to keep.

    Returns:
        ``(B, *kept, C)``.
    """
    rows, columns, channels = padded[0] // size, padded[1] // size, windows.shape[-1]
    x = windows.reshape(-1, rows, columns, size, size, channels).permute(0, 1, 3, 2, 4, 5)
    return x.reshape(-1, *padded, channels)[:, : kept[0], : kept[1]]
