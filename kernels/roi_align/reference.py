"""Pooling of regions in plain torch, upright and rotated.

A bin of the output is a weighted sum of cells of the map: the output is a sparse matrix of weights times the map as
a ``(cells, channels)`` table. The entries of that matrix are computed for all regions at once, whatever their numbers
of samples; the product is ``embedding_bag``, which reads whole rows of channels. The gradient is the product with the
transposed matrix: the same entries, sorted by cell. It adds in a fixed order, so it is deterministic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align as torchvision_roi_align

__all__ = [
    "LONGEST_SIDE",
    "Geometry",
    "Regions",
    "backward_reference",
    "backward_torchvision",
    "forward_reference",
    "forward_torchvision",
    "upright_regions",
]

# Adaptive sampling takes about one sample a cell, so that a region of 1e9 cells would keep a device busy for good.
LONGEST_SIDE = 4096
SAMPLES_PER_CHUNK = 1 << 19


@dataclass(frozen=True)
class Regions:
    """R regions in cells of one map; every field is ``(R,)``.

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


Geometry = Callable[[Tensor, float], Regions]  # rois and spatial scale to regions


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
    rois: Tensor, scale: float, *, output_size: tuple[int, int], sampling_ratio: int, aligned: bool
) -> Regions:
    """``(R, 5)`` boxes (the image index is not looked at) to regions of a map."""
    left, top, right, bottom = (rois[:, 1:] * scale - (0.5 if aligned else 0.0)).unbind(dim=1)
    width, height = right - left, bottom - top
    if not aligned:
        width, height = width.clamp(min=1), height.clamp(min=1)
    usable = usable_sides(height, width, sampling_ratio)
    bin_height, bin_width = height / output_size[0], width / output_size[1]
    rows = samples_a_bin(bin_height, sampling_ratio)
    columns = samples_a_bin(bin_width, sampling_ratio)
    return Regions(top, left, bin_height, bin_width, rows * usable, columns * usable)


def _entries(
    regions: Regions, image: Tensor, output_size: tuple[int, int], map_size: tuple[int, int]
) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
    """The sparse matrix, some rows at a time.

    Yields:
        (rows of the matrix: bins, numbered region by region), ``(E,)`` int32 cells, ``(E,)`` weights, and ``(bins,)``
        int64 numbers of entries. Bins without any entry are in there too.
    """
    height, width = map_size
    num_bins = output_size[0] * output_size[1]
    device = image.device
    down = torch.arange(output_size[0], device=device).repeat_interleave(output_size[1])
    across = torch.arange(output_size[1], device=device).repeat(output_size[0])

    def of_bins(value: Tensor) -> Tensor:
        return value[:, None].expand(-1, num_bins).reshape(-1)

    start_y = regions.y if regions.start_y is None else regions.start_y
    start_x = regions.x if regions.start_x is None else regions.start_x
    per_sample = regions.rows * regions.columns
    columns = [
        (start_y[:, None] + down * regions.bin_height[:, None]).reshape(-1),
        (start_x[:, None] + across * regions.bin_width[:, None]).reshape(-1),
        of_bins(regions.bin_height / regions.rows),
        of_bins(regions.bin_width / regions.columns),
        of_bins(per_sample.to(regions.y.dtype).reciprocal()),
    ]
    if regions.cos is not None and regions.sin is not None:
        columns += [of_bins(v) for v in (regions.cos, regions.sin, regions.y, regions.x)]
    numbers = torch.stack(columns, dim=1)  # (bins, 5 or 9)
    integers = torch.stack([of_bins(image * (height * width)), of_bins(regions.columns)], dim=1)
    counts = of_bins(per_sample)
    ends = counts.cumsum(0)

    first = 0
    while first < counts.shape[0]:
        done = int(ends[first - 1]) if first > 0 else 0
        last = int(torch.searchsorted(ends, done + SAMPLES_PER_CHUNK, right=True))
        last = min(max(last, first + 1), counts.shape[0])
        part = slice(first, last)
        bins = torch.arange(last - first, device=device).repeat_interleave(counts[part])
        number = torch.arange(bins.shape[0], device=device) - (ends[part] - counts[part] - done)[bins]
        begin, row_length = integers[part].index_select(0, bins).unbind(dim=1)
        values = numbers[part].index_select(0, bins).unbind(dim=1)
        row = number.div(row_length, rounding_mode="trunc")
        y = values[0] + (row + 0.5) * values[2]
        x = values[1] + (number - row * row_length + 0.5) * values[3]
        weight = values[4]
        if regions.cos is not None:
            cos, sin, center_y, center_x = values[5:]
            y, x = y * cos - x * sin + center_y, y * sin + x * cos + center_x
        inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
        kept = counts[part]
        if not bool(inside.all()):
            where = inside.nonzero().squeeze(1)
            y, x, weight, begin, bins = (v.index_select(0, where) for v in (y, x, weight, begin, bins))
            kept = torch.bincount(bins, minlength=last - first)
        y, x = y.clamp_(0, height - 1), x.clamp_(0, width - 1)
        top, left = y.floor(), x.floor()
        low, right_share = y - top, x - left
        cell = begin + top.to(torch.int64) * width + left.to(torch.int64)
        step_right = (left < width - 1).to(torch.int64)
        below = cell + (top < height - 1).to(torch.int64) * width
        cells = torch.stack([cell, cell + step_right, below, below + step_right], dim=1)
        low_weight = low * weight
        high_weight = weight - low_weight
        low_right, high_right = low_weight * right_share, high_weight * right_share
        weights = torch.stack(
            [high_weight - high_right, high_right, low_weight - low_right, low_right], dim=1
        )
        yield part, cells.reshape(-1).to(torch.int32), weights.reshape(-1), kept * 4
        first = last


def _starts(counts: Tensor) -> Tensor:
    """Counts to the position at which each begins."""
    return (counts.cumsum(0) - counts).to(torch.int32)


def _on_level(rois: Tensor, levels: Tensor | None, level: int, num_images: int) -> Tensor:
    """Indices of the regions that read a level; those of images that do not exist read none."""
    image = rois[:, 0]
    there = (image >= 0) & (image < num_images) & torch.isfinite(rois).all(dim=1)
    if levels is not None:
        there &= levels == level
    return there.nonzero().squeeze(1)


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
    num_images, channels = features[0].shape[:2]
    dtype = _working_dtype(features[0].dtype)
    rois = rois.to(dtype)
    num_bins = output_size[0] * output_size[1]
    out = features[0].new_zeros(rois.shape[0], channels, *output_size)
    if out.numel() == 0:
        return out
    for level, (feature, scale) in enumerate(zip(features, spatial_scales, strict=True)):
        chosen = _on_level(rois, levels, level, num_images)
        height, width = feature.shape[2:]
        if chosen.shape[0] == 0 or height * width == 0:
            continue
        own = rois[chosen]
        table = feature.to(dtype).permute(0, 2, 3, 1).reshape(-1, channels).contiguous()  # one image: still a view
        pooled = table.new_zeros(own.shape[0] * num_bins, channels)
        regions = geometry(own, scale)
        for bins, cells, weights, counts in _entries(regions, own[:, 0].long(), output_size, (height, width)):
            if cells.shape[0] > 0:
                pooled[bins] = F.embedding_bag(
                    cells, table, _starts(counts), mode="sum", per_sample_weights=weights
                )
        values = pooled.view(-1, num_bins, channels).transpose(1, 2).reshape(-1, channels, *output_size)
        out[chosen] = values.to(out.dtype)
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
    output_size = (grad.shape[2], grad.shape[3])
    num_bins = output_size[0] * output_size[1]
    grads = []
    for level, (shape, scale) in enumerate(zip(shapes, spatial_scales, strict=True)):
        num_images, channels, height, width = shape
        chosen = _on_level(rois, levels, level, num_images)
        if chosen.shape[0] == 0 or math.prod(shape) == 0 or num_bins == 0:
            grads.append(grad.new_zeros(list(shape)))
            continue
        own = rois[chosen]
        rows = grad[chosen].to(dtype).flatten(2).transpose(1, 2).reshape(-1, channels).contiguous()
        table = rows.new_zeros(num_images * height * width, channels)
        regions = geometry(own, scale)
        for bins, cells, weights, counts in _entries(regions, own[:, 0].long(), output_size, (height, width)):
            if cells.shape[0] == 0:
                continue
            row = torch.arange(bins.start, bins.stop, dtype=torch.int32, device=grad.device)
            row = row.repeat_interleave(counts)
            cells, order = cells.sort(stable=True)
            touched, counts = torch.unique_consecutive(cells, return_counts=True)
            sums = F.embedding_bag(
                row[order], rows, _starts(counts), mode="sum", per_sample_weights=weights[order]
            )
            touched = touched.long()
            table[touched] += sums  # no index is there twice
        table = table.view(num_images, height, width, channels)
        grads.append(table.permute(0, 3, 1, 2).to(grad.dtype).contiguous())
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
