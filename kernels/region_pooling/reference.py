"""Definition of bilinear sampling on a feature map, one position at a time."""

from __future__ import annotations

from torch import Tensor

__all__ = ["sample_bilinear"]


def sample_bilinear(feature: Tensor, y: float, x: float) -> Tensor:
    """Return the ``(C,)`` value of a ``(C, H, W)`` map at (y, x), in cells with integer coordinates at cell centers.

    A position up to one cell outside of the map takes the value at the edge; positions further out are 0.
    """
    height, width = feature.shape[1:]
    if feature.numel() == 0 or not (-1 <= y <= height and -1 <= x <= width):
        return feature.new_zeros(feature.shape[0])
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    dy, dx = y - top, x - left
    upper = (1 - dx) * feature[:, top, left] + dx * feature[:, top, right]
    lower = (1 - dx) * feature[:, bottom, left] + dx * feature[:, bottom, right]
    return (1 - dy) * upper + dy * lower
