"""Geometry of upright regions for the PyTorch implementation in ``region_pooling``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from hydet.kernels.region_pooling import torch_impl as region_pooling
from hydet.kernels.region_pooling.regions import Regions, num_samples_along_bin, sides_are_valid

__all__ = ["backward_torch", "count_samples", "forward_torch", "upright_regions"]


def upright_regions(
    rois: Tensor, scale: Tensor, *, output_size: tuple[int, int], sampling_ratio: int, aligned: bool
) -> Regions:
    """Convert ``(R, 5)`` rois, whose image index is ignored, to regions in cells of their maps."""
    left, top, right, bottom = (rois[:, 1:] * scale - (0.5 if aligned else 0.0)).unbind(dim=1)
    width, height = right - left, bottom - top
    if not aligned:
        width, height = width.clamp(min=1), height.clamp(min=1)
    valid = sides_are_valid(height, width, sampling_ratio)
    bin_height, bin_width = height / output_size[0], width / output_size[1]
    rows = num_samples_along_bin(bin_height, sampling_ratio)
    columns = num_samples_along_bin(bin_width, sampling_ratio)
    return Regions(top, left, bin_height, bin_width, rows * valid, columns * valid)


def count_samples(
    rois: Tensor,
    levels: Tensor | None,
    output_size: tuple[int, int],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
    aligned: bool,
) -> int:
    """Return the number of samples in all bins of all regions. Synchronizes with the host."""
    geometry = partial(
        upright_regions, output_size=output_size, sampling_ratio=sampling_ratio, aligned=aligned
    )
    return region_pooling.count_samples(rois, levels, output_size, spatial_scales, geometry)


def forward_torch(
    features: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor | None,
    output_size: tuple[int, int],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """Compute ``roi_align``."""
    geometry = partial(
        upright_regions, output_size=output_size, sampling_ratio=sampling_ratio, aligned=aligned
    )
    return region_pooling.forward_torch(features, rois, levels, output_size, spatial_scales, geometry)


def backward_torch(
    grad: Tensor,
    rois: Tensor,
    levels: Tensor | None,
    shapes: Sequence[Sequence[int]],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
    aligned: bool,
    *,
    channels_last: bool = False,
) -> list[Tensor]:
    """Return the gradients of the maps, given the gradient of the output."""
    geometry = partial(
        upright_regions,
        output_size=(grad.shape[2], grad.shape[3]),
        sampling_ratio=sampling_ratio,
        aligned=aligned,
    )
    return region_pooling.backward_torch(
        grad, rois, levels, shapes, spatial_scales, geometry, channels_last=channels_last
    )
