"""Pooling of regions in plain torch, upright and rotated.

A bin of the output is a weighted sum of cells: the output is a sparse matrix of weights times the maps of all levels as
one ``(cells, channels)`` table. The entries of that matrix are computed for many regions at once, whatever their
levels and numbers of samples; the product is ``embedding_bag``, which reads whole rows of channels. The gradient is
the product with the transposed matrix: the same entries, sorted by cell. It adds in a fixed order, so it is
deterministic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align as torchvision_roi_align

from hydet.kernels.chunks import chunks

__all__ = [
    "LONGEST_SIDE",
    "Geometry",
    "Regions",
    "backward_reference",
    "backward_torchvision",
    "count_samples",
    "forward_reference",
    "forward_torchvision",
    "upright_regions",
]

# Adaptive sampling takes about one sample a cell, so that a region of 1e9 cells would keep a device busy for good.
LONGEST_SIDE = 4096
# The forward's temporaries stay small enough to be handed from one chunk to the next; each chunk of the backward costs
# a pass over the cells it touches.
SAMPLES_PER_CHUNK = 1 << 16
SAMPLES_PER_BACKWARD_CHUNK = 1 << 21


class _OfRegions:
    """Facts about R regions, each a field of shape ``(R,)`` or None."""

    def some(self, part: slice) -> Self:
        """The same facts about a part of the regions."""
        return type(self)(*(v if v is None else v[part] for v in vars(self).values()))


@dataclass(frozen=True)
class Regions(_OfRegions):
    """R regions in cells of their maps; every field is ``(R,)``.

    ``y`` and ``x`` are what offsets are added to: the upper left corner, or the centre of rotated ones, for which
    ``start_y`` and ``start_x`` lead back to the corner before the rotation by ``cos`` and ``sin``.
    """

    y: Tensor
    x: Tensor
    bin_height: Tensor
    bin_width: Tensor
    rows: Tensor  # int64: samples of a bin, downwards
    columns: Tensor  # and across
    start_y: Tensor | None = None
    start_x: Tensor | None = None
    cos: Tensor | None = None
    sin: Tensor | None = None


Geometry = Callable[[Tensor, Tensor], Regions]  # rois and the (R, 1) spatial scale of each to regions


def samples_a_bin(bin_size: Tensor, sampling_ratio: int) -> Tensor:
    """Number of samples along one axis, int64; 0 for sides that are negative, too long or not finite."""
    if sampling_ratio > 0:
        return torch.full_like(bin_size, sampling_ratio, dtype=torch.int64)
    return bin_size.ceil().nan_to_num(nan=0.0).clamp(min=0, max=LONGEST_SIDE).to(torch.int64)


def usable_sides(height: Tensor, width: Tensor, sampling_ratio: int) -> Tensor:
    """Mask of the regions that are sampled at all."""
    limit = LONGEST_SIDE if sampling_ratio <= 0 else math.inf
    finite = torch.isfinite(height) & torch.isfinite(width)
    return finite & (height <= limit) & (width <= limit)


def upright_regions(
    rois: Tensor, scale: Tensor, *, output_size: tuple[int, int], sampling_ratio: int, aligned: bool
) -> Regions:
    """``(R, 5)`` boxes (the image index is not looked at) to regions of their maps."""
    left, top, right, bottom = (rois[:, 1:] * scale - (0.5 if aligned else 0.0)).unbind(dim=1)
    width, height = right - left, bottom - top
    if not aligned:
        width, height = width.clamp(min=1), height.clamp(min=1)
    usable = usable_sides(height, width, sampling_ratio)
    bin_height, bin_width = height / output_size[0], width / output_size[1]
    rows = samples_a_bin(bin_height, sampling_ratio)
    columns = samples_a_bin(bin_width, sampling_ratio)
    return Regions(top, left, bin_height, bin_width, rows * usable, columns * usable)


def count_samples(
    rois: Tensor,
    levels: Tensor | None,
    output_size: tuple[int, int],
    spatial_scales: Sequence[float],
    geometry: Geometry,
) -> int:
    """How many samples all bins of all regions have together."""
    scales = rois.new_tensor(spatial_scales)
    level = 0 if levels is None else levels.clamp(0, len(spatial_scales) - 1)
    regions = geometry(rois, scales[level].expand(rois.shape[0])[:, None])
    return int((regions.rows * regions.columns).sum()) * output_size[0] * output_size[1]


@dataclass(frozen=True)
class _Places(_OfRegions):
    """Where R regions read in the table of all cells; every field is ``(R,)``."""

    first_cell: Tensor  # int64: of the region's image on its level
    height: Tensor  # int64, of the map
    width: Tensor
    usable: Tensor  # whether there is such an image and level, and all numbers are finite
    scale: Tensor

    @classmethod
    def find(
        cls, rois: Tensor, levels: Tensor | None, shapes: Sequence[Sequence[int]], scales: Sequence[float]
    ) -> _Places:
        num_images = shapes[0][0]
        level = torch.zeros(len(rois), dtype=torch.int64, device=rois.device) if levels is None else levels
        usable = (level >= 0) & (level < len(shapes)) & torch.isfinite(rois).all(dim=1)
        usable &= (rois[:, 0] >= 0) & (rois[:, 0] < num_images)
        level, image = level * usable, torch.where(usable, rois[:, 0], 0).long()
        sizes = [height * width for _, _, height, width in shapes]
        firsts = [num_images * sum(sizes[:i]) for i in range(len(sizes))]
        table = torch.tensor(
            [firsts, sizes, *([s[axis] for s in shapes] for axis in (2, 3))], device=rois.device
        )
        first, size, height, width = table[:, level]
        return cls(first + image * size, height, width, usable & (size > 0), rois.new_tensor(scales)[level])


def _of_bins(value: Tensor, num_bins: int) -> Tensor:
    return value[:, None].expand(-1, num_bins).reshape(-1)


def _entries(
    regions: Regions, places: _Places, output_size: tuple[int, int], samples_per_chunk: int
) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
    """The sparse matrix, the rows of some regions at a time.

    Yields:
        (rows of the matrix: bins, numbered region by region), ``(E,)`` int32 cells, ``(E,)`` weights, and ``(bins,)``
        int64 numbers of entries. Bins without any entry are in there too.
    """
    num_bins = output_size[0] * output_size[1]
    samples = torch.where(places.usable, regions.rows * regions.columns, 0) * num_bins
    for part, _ in chunks(samples.cumsum(0), samples_per_chunk):
        bins = slice(part.start * num_bins, part.stop * num_bins)
        yield bins, *_entries_of(regions.some(part), places.some(part), output_size)


def _entries_of(
    regions: Regions, places: _Places, output_size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    device, dtype = regions.y.device, regions.y.dtype
    num_bins = output_size[0] * output_size[1]
    down = torch.arange(output_size[0], device=device).repeat_interleave(output_size[1])
    across = torch.arange(output_size[1], device=device).repeat(output_size[0])
    start_y = regions.y if regions.start_y is None else regions.start_y
    start_x = regions.x if regions.start_x is None else regions.start_x
    per_sample = torch.where(places.usable, regions.rows * regions.columns, 0)
    constant = [
        regions.bin_height / regions.rows,
        regions.bin_width / regions.columns,
        per_sample.to(dtype).reciprocal(),
        places.height.to(dtype),
        places.width.to(dtype),
    ]
    if regions.cos is not None and regions.sin is not None:
        constant += [regions.cos, regions.sin, regions.y, regions.x]
    numbers = torch.stack(
        [
            (start_y[:, None] + down * regions.bin_height[:, None]).reshape(-1),
            (start_x[:, None] + across * regions.bin_width[:, None]).reshape(-1),
            *(_of_bins(value, num_bins) for value in constant),
        ]
    )  # (7 or 11, bins)
    integers = torch.stack(
        [_of_bins(v, num_bins) for v in (places.first_cell, places.width, regions.columns)]
    )
    counts = _of_bins(per_sample, num_bins)

    bins = torch.arange(counts.shape[0], device=device).repeat_interleave(counts)  # (samples,)
    number = torch.arange(bins.shape[0], device=device) - (counts.cumsum(0) - counts).index_select(0, bins)
    first_cell, map_width, row_length = integers.index_select(1, bins)
    bin_y, bin_x, step_y, step_x, weight, height, width, *rotation = numbers.index_select(1, bins)
    row = number.div(row_length, rounding_mode="trunc")
    y = (row + 0.5).mul_(step_y).add_(bin_y)
    x = (number - row * row_length + 0.5).mul_(step_x).add_(bin_x)
    if rotation:
        cos, sin, center_y, center_x = rotation
        y, x = y * cos - x * sin + center_y, y * sin + x * cos + center_x
    inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    if not bool(inside.all()):
        where = inside.nonzero().squeeze(1)
        every = (y, x, weight, height, width, first_cell, map_width, bins)
        y, x, weight, height, width, first_cell, map_width, bins = (v.index_select(0, where) for v in every)
        counts = torch.bincount(bins, minlength=counts.shape[0])
    last_row, last_column = height - 1, width - 1
    y, x = torch.minimum(y.clamp_(min=0), last_row), torch.minimum(x.clamp_(min=0), last_column)
    top, left = y.floor(), x.floor()
    low, right_share = y.sub_(top), x.sub_(left)
    cell = top.to(torch.int64).mul_(map_width).add_(left.to(torch.int64)).add_(first_cell)
    step_right = left < last_column
    below = cell + (top < last_row) * map_width
    cells = torch.stack([cell, cell + step_right, below, below + step_right], dim=1)
    low_weight = low.mul_(weight)
    high_weight = weight - low_weight
    low_right, high_right = low_weight * right_share, high_weight * right_share
    weights = torch.stack([high_weight - high_right, high_right, low_weight - low_right, low_right], dim=1)
    return cells.reshape(-1).to(torch.int32), weights.reshape(-1), counts * 4


def _starts(counts: Tensor) -> Tensor:
    """Counts to the position at which each begins."""
    return (counts.cumsum(0) - counts).to(torch.int32)


def _bags(index: Tensor, table: Tensor, counts: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of rows of a table; every ``counts`` of the indices make one sum."""
    return F.embedding_bag(index, table, _starts(counts), mode="sum", per_sample_weights=weights)


def _working_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def forward_reference(
    features: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor | None,
    output_size: tuple[int, int],
    spatial_scales: Sequence[float],
    geometry: Geometry,
) -> Tensor:
    """Pool ``(R, C, h, w)``; ``geometry`` says where regions lie. Computes in float32, or float64 if given that."""
    channels = features[0].shape[1]
    dtype = _working_dtype(features[0].dtype)
    rois = rois.to(dtype)
    num_bins = output_size[0] * output_size[1]
    out = features[0].new_empty(rois.shape[0], channels, *output_size)
    sizes = [f.shape[0] * f.shape[2] * f.shape[3] for f in features]
    if out.numel() == 0 or sum(sizes) == 0:
        return out.zero_()
    table = torch.empty(sum(sizes), channels, dtype=dtype, device=out.device)
    for part, feature in zip(table.split(sizes), features, strict=True):
        num_images, _, height, width = feature.shape
        part.view(num_images, height, width, channels).copy_(feature.permute(0, 2, 3, 1))
    places = _Places.find(rois, levels, [f.shape for f in features], spatial_scales)
    regions = geometry(rois, places.scale[:, None])
    flat = out.view(-1, channels, num_bins)
    for bins, cells, weights, counts in _entries(regions, places, output_size, SAMPLES_PER_CHUNK):
        own = flat[bins.start // num_bins : bins.stop // num_bins]
        if cells.shape[0] == 0:
            own.zero_()
            continue
        own.copy_(_bags(cells, table, counts, weights).view(-1, num_bins, channels).transpose(1, 2))
    return out


def backward_reference(
    grad: Tensor,
    rois: Tensor,
    levels: Tensor | None,
    shapes: Sequence[Sequence[int]],
    spatial_scales: Sequence[float],
    geometry: Geometry,
) -> list[Tensor]:
    """Gradients of the maps, contiguous, from that of the output."""
    dtype = _working_dtype(grad.dtype)
    rois = rois.to(dtype)
    channels, output_size = grad.shape[1], (grad.shape[2], grad.shape[3])
    sizes = [num_images * height * width for num_images, _, height, width in shapes]
    grads = [grad.new_empty(list(shape)) for shape in shapes]
    if grad.numel() == 0 or sum(sizes) == 0:
        return [g.zero_() for g in grads]
    places = _Places.find(rois, levels, shapes, spatial_scales)
    regions = geometry(rois, places.scale[:, None])
    # one region's transpose would stay a view, of which embedding_bag reads a number at a time
    rows = grad.to(dtype).flatten(2).transpose(1, 2).reshape(-1, channels).contiguous()
    table = None
    for bins, cells, weights, counts in _entries(regions, places, output_size, SAMPLES_PER_BACKWARD_CHUNK):
        row = torch.arange(bins.start, bins.stop, dtype=torch.int32, device=grad.device)
        row = row.repeat_interleave(counts)
        cells, order = cells.sort(stable=True)
        row, weights = row.index_select(0, order), weights.index_select(0, order)
        if table is None:
            table = _bags(row, rows, torch.bincount(cells, minlength=sum(sizes)), weights)
        elif cells.shape[0] > 0:
            touched, counts = torch.unique_consecutive(cells, return_counts=True)
            table[touched.long()] += _bags(row, rows, counts, weights)  # no index is there twice
    assert table is not None  # there is a region
    for part, own, shape in zip(table.split(sizes), grads, shapes, strict=True):
        num_images, _, height, width = shape
        own.copy_(part.view(num_images, height, width, channels).permute(0, 3, 1, 2))
    return grads


def _readable(rois: Tensor, scale: float, num_images: int, sampling_ratio: int) -> Tensor:
    """Regions for torchvision, which reads wherever they say: unusable ones go where all samples are outside."""
    sides = (rois[:, 3:] - rois[:, 1:3]) * scale
    readable = torch.isfinite(rois).all(dim=1) & (rois[:, 0] >= 0) & (rois[:, 0] < num_images)
    readable &= usable_sides(sides[:, 1], sides[:, 0], sampling_ratio)
    nowhere = rois.new_tensor([0.0, -16.0, -16.0, -15.0, -15.0]).div_(scale)
    return torch.where(readable[:, None], rois, nowhere)


def forward_torchvision(
    features: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor | None,
    output_size: tuple[int, int],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """The same with torchvision's op, level by level."""
    num_images, channels = features[0].shape[:2]
    dtype = _working_dtype(features[0].dtype)
    rois = rois.to(dtype)
    out = features[0].new_zeros(rois.shape[0], channels, *output_size)
    if out.numel() == 0:
        return out
    for level, (feature, scale) in enumerate(zip(features, spatial_scales, strict=True)):
        chosen = slice(None) if levels is None else (levels == level).nonzero().squeeze(1)
        if feature.numel() == 0 or rois[chosen].shape[0] == 0:
            continue
        own = _readable(rois[chosen], scale, num_images, sampling_ratio)
        pooled = torchvision_roi_align(feature.to(dtype), own, output_size, scale, sampling_ratio, aligned)
        out[chosen] = pooled.to(out.dtype)
    return out


def backward_torchvision(
    grad: Tensor,
    rois: Tensor,
    levels: Tensor | None,
    shapes: Sequence[Sequence[int]],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
    aligned: bool,
) -> list[Tensor]:
    """The same with torchvision's op, level by level; adds in no fixed order on CUDA."""
    dtype = _working_dtype(grad.dtype)
    rois = rois.to(dtype)
    grads = []
    for level, (shape, scale) in enumerate(zip(shapes, spatial_scales, strict=True)):
        chosen = slice(None) if levels is None else (levels == level).nonzero().squeeze(1)
        own_grad = grad[chosen].to(dtype)
        if own_grad.numel() == 0 or math.prod(shape) == 0:
            grads.append(grad.new_zeros(list(shape)))
            continue
        own = _readable(rois[chosen], scale, shape[0], sampling_ratio)
        found = torch.ops.torchvision._roi_align_backward(
            own_grad.contiguous(), own, scale, grad.shape[2], grad.shape[3], *shape, sampling_ratio, aligned
        )
        grads.append(found.to(grad.dtype))
    return grads
