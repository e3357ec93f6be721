"""Where rotated regions lie; they are pooled as upright ones are."""

from __future__ import annotations

import torch
from torch import Tensor

from hydet.kernels.roi_align.reference import Regions, samples_a_bin, usable_sides

__all__ = ["rotated_regions"]


def rotated_regions(
    rois: Tensor, scale: Tensor, *, output_size: tuple[int, int], sampling_ratio: int
) -> Regions:
    """``(R, 6)`` rotated boxes (the image index is not looked at) to regions of their maps."""
    center_x, center_y = (rois[:, 1:3] * scale - 0.5).unbind(dim=1)
    width, height = (rois[:, 3:5] * scale).unbind(dim=1)
    radians = rois[:, 5].remainder(360).deg2rad()
    usable = usable_sides(height, width, sampling_ratio) & torch.isfinite(radians)
    bin_height, bin_width = height / output_size[0], width / output_size[1]
    rows = samples_a_bin(bin_height, sampling_ratio)
    columns = samples_a_bin(bin_width, sampling_ratio)
    return Regions(
        y=center_y,
        x=center_x,
        bin_height=bin_height,
        bin_width=bin_width,
        rows=rows * usable,
        columns=columns * usable,
        start_y=height * -0.5,
        start_x=width * -0.5,
        cos=radians.cos(),
        sin=radians.sin(),
    )
