"""Definition of ``roi_align_rotated``: loops over regions, bins and samples."""

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
) -> Tensor:
    """Compute ``roi_align_rotated``. Autograd gives the gradient."""
    num_rows, num_columns = output_size
    out = features[0].new_zeros(rois.shape[0], features[0].shape[1], num_rows, num_columns)
    for r, (image, *box) in enumerate(rois.tolist()):
        level = 0 if levels is None else int(levels[r])
        if not (0 <= image < features[0].shape[0] and 0 <= level < len(features)):
            continue
        if not all(math.isfinite(value) for value in box):
            continue
        feature, scale = features[level][int(image)], spatial_scales[level]
        cx, cy, width, height, angle = box
        cx, cy, width, height = cx * scale - 0.5, cy * scale - 0.5, width * scale, height * scale
        if sampling_ratio <= 0 and max(height, width) > LONGEST_SIDE:
            continue
        cos, sin = math.cos(math.radians(angle % 360)), math.sin(math.radians(angle % 360))
        rows = sampling_ratio if sampling_ratio > 0 else math.ceil(height / num_rows)
        columns = sampling_ratio if sampling_ratio > 0 else math.ceil(width / num_columns)
        if rows < 1 or columns < 1:
            continue
        for i in range(num_rows):
            for j in range(num_columns):
                samples = []
                for m in range(rows):
                    for n in range(columns):
                        # Position relative to the center, before the rotation.
                        v = ((i + (m + 0.5) / rows) / num_rows - 0.5) * height
                        u = ((j + (n + 0.5) / columns) / num_columns - 0.5) * width
                        y, x = cy + v * cos - u * sin, cx + v * sin + u * cos
                        samples.append(sample_bilinear(feature, y, x))
                out[r, :, i, j] = torch.stack(samples).mean(dim=0)
    return out
