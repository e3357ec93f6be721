"""Geometry of rotated regions for the PyTorch implementation in ``region_pooling``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from hydet.kernels.region_pooling import torch_impl as region_pooling
from hydet.kernels.region_pooling.regions import Regions, num_samples_along_bin, sides_are_valid

__all__ = ["backward_torch", "forward_torch", "rotated_regions"]


def rotated_regions(
    rois: Tensor, scale: Tensor, *, output_size: tuple[int, int], sampling_ratio: int
) -> Regions:
    """Convert ``(R, 6)`` rois, whose image index is ignored, to regions in cells of their maps."""
    center_x, center_y = (rois[:, 1:3] * scale - 0.5).unbind(dim=1)
    width, height = (rois[:, 3:5] * scale).unbind(dim=1)
    radians = rois[:, 5].remainder(360).deg2rad()
    valid = sides_are_valid(height, width, sampling_ratio) & torch.isfinite(radians)
    bin_height, bin_width = height / output_size[0], width / output_size[1]
    rows = num_samples_along_bin(bin_height, sampling_ratio)
    columns = num_samples_along_bin(bin_width, sampling_ratio)
    return Regions(
        y=center_y,
        x=center_x,
        bin_height=bin_height,
        bin_width=bin_width,
        rows=rows * valid,
        columns=columns * valid,
        start_y=height * -0.5,
        start_x=width * -0.5,
        cos=radians.cos(),
        sin=radians.sin(),
    )


def forward_torch(
    features: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor | None,
    output_size: tuple[int, int],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
) -> Tensor:
    """Compute ``roi_align_rotated``."""
    geometry = partial(rotated_regions, output_size=output_size, sampling_ratio=sampling_ratio)
    return region_pooling.forward_torch(features, rois, levels, output_size, spatial_scales, geometry)


def backward_torch(
    grad: Tensor,
    rois: Tensor,
    levels: Tensor | None,
    shapes: Sequence[Sequence[int]],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
    *,
    channels_last: bool = False,
) -> list[Tensor]:
    """Return the gradients of the maps, given the gradient of the output."""
    output_size = (grad.shape[2], grad.shape[3])
    geometry = partial(rotated_regions, output_size=output_size, sampling_ratio=sampling_ratio)
    return region_pooling.backward_torch(
        grad, rois, levels, shapes, spatial_scales, geometry, channels_last=channels_last
    )
