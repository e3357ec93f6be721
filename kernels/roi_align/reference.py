"""Definition of ``roi_align``: loops over regions, bins and samples."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hydet.kernels.region_pooling.reference import sample_bilinear
from hydet.kernels.region_pooling.regions import LONGEST_SIDE

__all__ = ["forward_reference"]


def forward_reference(
    features: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor | None,
    output_size: tuple[int, int],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """Compute ``roi_align``. Autograd gives the gradient."""
    num_rows, num_columns = output_size
    out = features[0].new_zeros(rois.shape[0], features[0].shape[1], num_rows, num_columns)
    for r, (image, *box) in enumerate(rois.tolist()):
        level = 0 if levels is None else int(levels[r])
        if not (0 <= image < features[0].shape[0] and 0 <= level < len(features)):
            continue
        feature, scale = features[level][int(image)], spatial_scales[level]
        x1, y1, x2, y2 = (coordinate * scale - (0.5 if aligned else 0) for coordinate in box)
        height, width = y2 - y1, x2 - x1
        if not aligned:
            height, width = max(height, 1), max(width, 1)
        if not (math.isfinite(height) and math.isfinite(width)):
            continue
        if sampling_ratio <= 0 and max(height, width) > LONGEST_SIDE:
            continue
        bin_height, bin_width = height / num_rows, width / num_columns
        rows = sampling_ratio if sampling_ratio > 0 else math.ceil(bin_height)
        columns = sampling_ratio if sampling_ratio > 0 else math.ceil(bin_width)
        if rows < 1 or columns < 1:
            continue
        for i in range(num_rows):
            for j in range(num_columns):
                samples = [
                    sample_bilinear(
                        feature,
                        y1 + (i + (m + 0.5) / rows) * bin_height,
                        x1 + (j + (n + 0.5) / columns) * bin_width,
                    )
                    for m in range(rows)
                    for n in range(columns)
                ]
                out[r, :, i, j] = torch.stack(samples).mean(dim=0)
    return out
