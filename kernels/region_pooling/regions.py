"""Geometry of regions on their feature maps, upright or rotated, as used by the PyTorch implementation.

R is the number of regions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

__all__ = [
    "LONGEST_SIDE",
    "Geometry",
    "RegionFields",
    "Regions",
    "num_samples_along_bin",
    "sides_are_valid",
    "working_dtype",
]

# Adaptive sampling takes about one sample per cell, so a region of 1e9 cells would block a device for minutes.
LONGEST_SIDE = 4096


class RegionFields:
    """Base of dataclasses with one value per region in every field, ``(R,)`` or None."""

    def select(self, part: slice) -> Self:
        """Return the values of some regions."""
        return type(self)(*(value if value is None else value[part] for value in vars(self).values()))


@dataclass(frozen=True)
class Regions(RegionFields):
    """Regions in cells of their maps; every field is ``(R,)``.

    Bins start at (``y``, ``x``), the upper left corner of an upright region. For rotated regions, (``y``, ``x``) is the
    center. Bins then start at (``start_y``, ``start_x``) relative to the center, and positions are rotated around it by
    the angle of ``cos`` and ``sin``.
    """

    y: Tensor
    x: Tensor
    bin_height: Tensor
    bin_width: Tensor
    rows: Tensor  # int64, samples per bin in y; 0 for regions that are not sampled
    columns: Tensor  # int64, samples per bin in x
    start_y: Tensor | None = None
    start_x: Tensor | None = None
    cos: Tensor | None = None
    sin: Tensor | None = None


# Maps rois and the (R, 1) spatial scale of each to regions.
Geometry = Callable[[Tensor, Tensor], Regions]


def num_samples_along_bin(bin_size: Tensor, sampling_ratio: int) -> Tensor:
    """Return the int64 number of samples along one side of a bin; 0 if the side is negative, too long or NaN."""
    if sampling_ratio > 0:
        return torch.full_like(bin_size, sampling_ratio, dtype=torch.int64)
    return bin_size.ceil().nan_to_num(nan=0.0).clamp(min=0, max=LONGEST_SIDE).to(torch.int64)


def sides_are_valid(height: Tensor, width: Tensor, sampling_ratio: int) -> Tensor:
    """Return True for regions with finite sides, which adaptive sampling also limits to ``LONGEST_SIDE`` cells."""
    limit = LONGEST_SIDE if sampling_ratio <= 0 else math.inf
    finite = torch.isfinite(height) & torch.isfinite(width)
    return finite & (height <= limit) & (width <= limit)


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype for the computation on maps of ``dtype``: float64 for float64, otherwise float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32
