"""The sparse matrix that maps cells of a feature map to bins of regions.

A bin of the output is a weighted sum of cells. So pooling is the product of a sparse matrix with the cells of a feature
map, stored as a ``(cells, channels)`` table. The rows of the matrix are bins, numbered region by region, and its columns
are cells. The entries are computed for many regions at once, whatever their numbers of samples.

R regions, E entries.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from hydet.kernels.chunks import chunks
from hydet.kernels.region_pooling.regions import RegionFields, Regions

__all__ = ["MatrixRows", "SourceMaps", "sampling_matrix"]


@dataclass(frozen=True)
class SourceMaps(RegionFields):
    """The image that each region reads, as part of the table of all cells; every field is ``(R,)``."""

    first_cell: Tensor  # int64, first cell of the image of the region
    height: Tensor  # int64, of the map
    width: Tensor
    valid: Tensor  # False if the image does not exist, or if a value of the region is not finite
    scale: Tensor  # spatial scale of the map

    @classmethod
    def find(cls, rois: Tensor, shape: Sequence[int], scale: float) -> SourceMaps:
        """Locate the image of each region in a ``(N, C, H, W)`` map with a spatial scale."""
        num_images, _, height, width = shape
        valid = torch.isfinite(rois).all(dim=1) & (rois[:, 0] >= 0) & (rois[:, 0] < num_images)
        image = torch.where(valid, rois[:, 0], 0).long()
        return cls(
            first_cell=image * (height * width),
            height=torch.full_like(image, height),
            width=torch.full_like(image, width),
            valid=valid & (height * width > 0),
            scale=torch.full_like(rois[:, 0], scale),
        )


class MatrixRows(NamedTuple):
    """Some consecutive rows of the matrix, including rows without entries."""

    bins: slice  # the rows
    cells: Tensor  # (E,) int32, column of each entry, ordered by row
    weights: Tensor  # (E,), value of each entry
    counts: Tensor  # (bins,) int64, number of entries per row


class _BinTable(NamedTuple):
    """Values per bin that its samples need."""

    numbers: Tensor  # (7, bins): start y and x, sample step y and x, weight, map height and width; rotated: (11, bins)
    integers: Tensor  # (3, bins): first cell, map width, samples per row
    num_samples: Tensor  # (bins,)


def sampling_matrix(
    regions: Regions, maps: SourceMaps, output_size: tuple[int, int], samples_per_chunk: int
) -> Iterator[MatrixRows]:
    """Yield the rows of the matrix in chunks of regions with about ``samples_per_chunk`` samples in total."""
    num_bins = output_size[0] * output_size[1]
    num_samples = torch.where(maps.valid, regions.rows * regions.columns, 0) * num_bins
    for part, _ in chunks(num_samples.cumsum(0), samples_per_chunk):
        bins = slice(part.start * num_bins, part.stop * num_bins)
        yield MatrixRows(bins, *_entries(_bin_table(regions.select(part), maps.select(part), output_size)))


def _bin_table(regions: Regions, maps: SourceMaps, output_size: tuple[int, int]) -> _BinTable:
    device, dtype = regions.y.device, regions.y.dtype
    num_bins = output_size[0] * output_size[1]

    def repeat_per_bin(value: Tensor) -> Tensor:
        return value[:, None].expand(-1, num_bins).reshape(-1)

    bin_row = torch.arange(output_size[0], device=device).repeat_interleave(output_size[1])
    bin_column = torch.arange(output_size[1], device=device).repeat(output_size[0])
    start_y = regions.y if regions.start_y is None else regions.start_y
    start_x = regions.x if regions.start_x is None else regions.start_x
    samples_per_bin = torch.where(maps.valid, regions.rows * regions.columns, 0)
    per_region = [
        regions.bin_height / regions.rows,
        regions.bin_width / regions.columns,
        samples_per_bin.to(dtype).reciprocal(),
        maps.height.to(dtype),
        maps.width.to(dtype),
    ]
    if regions.cos is not None and regions.sin is not None:
        per_region += [regions.cos, regions.sin, regions.y, regions.x]
    numbers = torch.stack(
        [
            (start_y[:, None] + bin_row * regions.bin_height[:, None]).reshape(-1),
            (start_x[:, None] + bin_column * regions.bin_width[:, None]).reshape(-1),
            *(repeat_per_bin(value) for value in per_region),
        ]
    )
    integers = torch.stack(
        [repeat_per_bin(value) for value in (maps.first_cell, maps.width, regions.columns)]
    )
    return _BinTable(numbers, integers, repeat_per_bin(samples_per_bin))


def _entries(table: _BinTable) -> tuple[Tensor, Tensor, Tensor]:
    """Return the cells, weights and counts of ``MatrixRows``: four entries per sample inside its map."""
    counts, device = table.num_samples, table.num_samples.device
    bins = torch.arange(counts.shape[0], device=device).repeat_interleave(counts)  # bin of each sample
    number = torch.arange(bins.shape[0], device=device) - (counts.cumsum(0) - counts).index_select(0, bins)
    first_cell, map_width, samples_per_row = table.integers.index_select(1, bins)
    bin_y, bin_x, step_y, step_x, weight, height, width, *rotation = table.numbers.index_select(1, bins)
    row = number.div(samples_per_row, rounding_mode="trunc")
    y = (row + 0.5).mul_(step_y).add_(bin_y)
    x = (number - row * samples_per_row + 0.5).mul_(step_x).add_(bin_x)
    if rotation:
        cos, sin, center_y, center_x = rotation
        y, x = y * cos - x * sin + center_y, y * sin + x * cos + center_x
    # Samples up to one cell outside of the map count as on its edge; samples further out are 0.
    inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    if not bool(inside.all()):
        index = inside.nonzero().squeeze(1)
        values = (y, x, weight, height, width, first_cell, map_width, bins)
        y, x, weight, height, width, first_cell, map_width, bins = (v.index_select(0, index) for v in values)
        counts = torch.bincount(bins, minlength=counts.shape[0])
    last_row, last_column = height - 1, width - 1
    y, x = torch.minimum(y.clamp_(min=0), last_row), torch.minimum(x.clamp_(min=0), last_column)
    top, left = y.floor(), x.floor()
    dy, dx = y.sub_(top), x.sub_(left)
    top_left = top.to(torch.int64).mul_(map_width).add_(left.to(torch.int64)).add_(first_cell)
    step_right = left < last_column  # 0 in the last column, so that the right neighbor is the cell itself
    bottom_left = top_left + (top < last_row) * map_width
    cells = torch.stack([top_left, top_left + step_right, bottom_left, bottom_left + step_right], dim=1)
    bottom_weight = dy.mul_(weight)
    top_weight = weight - bottom_weight
    bottom_right, top_right = bottom_weight * dx, top_weight * dx
    weights = torch.stack(
        [top_weight - top_right, top_right, bottom_weight - bottom_right, bottom_right], dim=1
    )
    return cells.reshape(-1).to(torch.int32), weights.reshape(-1), counts * 4
