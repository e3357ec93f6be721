"""Pooling of regions in PyTorch, upright and rotated: products with the sampling matrix.

The product with the matrix is ``embedding_bag``, which reads whole rows of channels. The gradient is the product with
the transposed matrix: the same entries, sorted by cell. It adds in a fixed order, so it is deterministic.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from hydet.kernels.region_pooling.regions import Geometry, working_dtype
from hydet.kernels.region_pooling.sampling_matrix import SourceMaps, sampling_matrix

__all__ = ["backward_torch", "count_samples", "forward_torch"]

# Temporaries of the forward pass are small enough that the allocator reuses them from chunk to chunk. Each chunk of the
# backward pass visits all cells that it affects, so it pays to have few chunks.
SAMPLES_PER_CHUNK = 1 << 16
SAMPLES_PER_BACKWARD_CHUNK = 1 << 21


def count_samples(
    rois: Tensor,
    levels: Tensor | None,
    output_size: tuple[int, int],
    spatial_scales: Sequence[float],
    geometry: Geometry,
) -> int:
    """Return the number of samples in all bins of all regions. Synchronizes with the host."""
    scales = rois.new_tensor(spatial_scales)
    level = 0 if levels is None else levels.clamp(0, len(spatial_scales) - 1)
    regions = geometry(rois, scales[level].expand(rois.shape[0])[:, None])
    return int((regions.rows * regions.columns).sum()) * output_size[0] * output_size[1]


def _weighted_sums(index: Tensor, table: Tensor, counts: Tensor, weights: Tensor) -> Tensor:
    """Return weighted sums of rows of ``table``; each takes the next ``counts[i]`` of ``index`` and ``weights``."""
    offsets = (counts.cumsum(0) - counts).to(torch.int32)
    return F.embedding_bag(index, table, offsets, mode="sum", per_sample_weights=weights)


def forward_torch(
    features: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor | None,
    output_size: tuple[int, int],
    spatial_scales: Sequence[float],
    geometry: Geometry,
) -> Tensor:
    """Pool regions, which ``geometry`` locates, to ``(R, C, h, w)``.

    Computes in float32, or in float64 for float64 maps. Maps that are stored channels last are read in place.
    """
    channels = features[0].shape[1]
    dtype = working_dtype(features[0].dtype)
    rois = rois.to(dtype)
    out = features[0].new_empty(rois.shape[0], channels, *output_size)
    if out.numel() == 0:
        return out
    if levels is not None:
        out[(levels < 0) | (levels >= len(features))] = 0
    flat_out = out.flatten(2)  # (R, C, bins)
    for level, (feature, scale) in enumerate(zip(features, spatial_scales, strict=True)):
        index = _regions_of_level(rois, levels, level)
        if index.shape[0] > 0:
            _pool_from_map(feature.to(dtype), rois[index], index, output_size, scale, geometry, flat_out)
    return out


def _regions_of_level(rois: Tensor, levels: Tensor | None, level: int) -> Tensor:
    """Return the numbers of the regions that read a level."""
    if levels is None:
        return torch.arange(rois.shape[0], device=rois.device)
    return (levels == level).nonzero().squeeze(1)


def _pool_from_map(
    feature: Tensor,
    rois: Tensor,
    index: Tensor,
    output_size: tuple[int, int],
    scale: float,
    geometry: Geometry,
    out: Tensor,
) -> None:
    """Pool regions from one ``(N, C, H, W)`` map, and store them at the positions ``index`` of ``(R, C, bins)``."""
    channels, num_bins = out.shape[1:]
    table = feature.permute(0, 2, 3, 1).reshape(-1, channels).contiguous()  # a row of channels per cell
    maps = SourceMaps.find(rois, feature.shape, scale)
    regions = geometry(rois, maps.scale[:, None])
    for bins, cells, weights, counts in sampling_matrix(regions, maps, output_size, SAMPLES_PER_CHUNK):
        positions = index[bins.start // num_bins : bins.stop // num_bins]
        if cells.shape[0] == 0:
            out[positions] = 0
            continue
        sums = _weighted_sums(cells, table, counts, weights)
        out[positions] = sums.view(-1, num_bins, channels).transpose(1, 2).to(out.dtype)


def backward_torch(
    grad: Tensor,
    rois: Tensor,
    levels: Tensor | None,
    shapes: Sequence[Sequence[int]],
    spatial_scales: Sequence[float],
    geometry: Geometry,
    *,
    channels_last: bool = False,
) -> list[Tensor]:
    """Return the gradients of the maps, contiguous or channels last, given the ``(R, C, h, w)`` gradient of the output."""
    dtype = working_dtype(grad.dtype)
    rois = rois.to(dtype)
    channels, output_size = grad.shape[1], (grad.shape[2], grad.shape[3])
    # For a single region, reshape returns a strided view, which embedding_bag reads one number at a time.
    bin_grads = grad.to(dtype).flatten(2).transpose(1, 2).reshape(-1, channels).contiguous()
    grads = []
    for level, (shape, scale) in enumerate(zip(shapes, spatial_scales, strict=True)):
        index = _regions_of_level(rois, levels, level)
        cells = _sum_into_cells(bin_grads, rois[index], index, shape, scale, output_size, geometry)
        num_images, _, height, width = shape
        map_grad = cells.view(num_images, height, width, channels).permute(0, 3, 1, 2).to(grad.dtype)
        grads.append(map_grad if channels_last else map_grad.contiguous())
    return grads


def _sum_into_cells(
    bin_grads: Tensor,
    rois: Tensor,
    index: Tensor,
    shape: Sequence[int],
    scale: float,
    output_size: tuple[int, int],
    geometry: Geometry,
) -> Tensor:
    """Return the ``(N * H * W, C)`` gradient of the cells of a map, from the bins of the regions ``index``."""
    num_images, channels, height, width = shape
    num_cells, num_bins = num_images * height * width, output_size[0] * output_size[1]
    table = None
    if index.shape[0] > 0 and num_cells > 0 and channels > 0:
        maps = SourceMaps.find(rois, shape, scale)
        regions = geometry(rois, maps.scale[:, None])
        bin_numbers = torch.arange(num_bins, dtype=torch.int32, device=rois.device)
        bin_numbers = (index[:, None].to(torch.int32) * num_bins + bin_numbers).flatten()
        for bins, cells, weights, counts in sampling_matrix(
            regions, maps, output_size, SAMPLES_PER_BACKWARD_CHUNK
        ):
            row = bin_numbers[bins].repeat_interleave(counts)
            cells, order = cells.sort(stable=True)
            row, weights = row.index_select(0, order), weights.index_select(0, order)
            if table is None:
                counts = torch.bincount(cells, minlength=num_cells)
                table = _weighted_sums(row, bin_grads, counts, weights)
            elif cells.shape[0] > 0:
                unique_cells, counts = torch.unique_consecutive(cells, return_counts=True)
                table[unique_cells.long()] += _weighted_sums(row, bin_grads, counts, weights)
    return bin_grads.new_zeros(num_cells, channels) if table is None else table
