"""Split a grid of tokens into windows, and merge the windows."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["merge_windows", "pad_to_multiple", "split_windows"]

# B images, C channels, a grid of H x W tokens, n windows of w x w per image.


def pad_to_multiple(x: Tensor, size: int) -> Tensor:
    """Pad ``(B, H, W, C)`` with zeros at the right and bottom until ``size`` divides H and W."""
    bottom, right = -x.shape[1] % size, -x.shape[2] % size
    return F.pad(x, (0, 0, 0, right, 0, bottom))


def split_windows(x: Tensor, size: int) -> Tensor:
    """Split a grid of tokens into windows.

    Args:
        x: ``(B, H, W, C)``; ``size`` divides H and W.
        size: side of a window, w.

    Returns:
        ``(B * n, w, w, C)``, sorted by image, then by row.
    """
    batch, height, width, channels = x.shape
    x = x.view(batch, height // size, size, width // size, size, channels)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, size, size, channels)


def merge_windows(windows: Tensor, size: int, padded: tuple[int, int], unpadded: tuple[int, int]) -> Tensor:
    """Invert ``split_windows`` and ``pad_to_multiple``.

    Args:
        windows: ``(B * n, w, w, C)``.
        size: side of a window, w.
        padded: ``(height, width)`` of the padded grid.
        unpadded: ``(height, width)`` of the grid before padding.

    Returns:
        ``(B, *unpadded, C)``.
    """
    rows, columns, channels = padded[0] // size, padded[1] // size, windows.shape[-1]
    x = windows.reshape(-1, rows, columns, size, size, channels).permute(0, 1, 3, 2, 4, 5)
    return x.reshape(-1, *padded, channels)[:, : unpadded[0], : unpadded[1]]
