"""Pooling of upright regions with torchvision's op and shapes that do not depend on the data, for exported programs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hydet.kernels.region_pooling.regions import sides_are_valid, working_dtype

__all__ = ["forward_plain"]


def forward_plain(
    features: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor | None,
    output_height: int,
    output_width: int,
    spatial_scales: Sequence[float],
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """Compute ``roi_align`` in operators that a process without hydet has: those of PyTorch and torchvision.

    Each level pools all regions. Those of other levels and invalid ones are moved to where all samples lie outside of the
    map, which is cheap and gives zeros, so that the sum over the levels is the result.
    """
    dtype = working_dtype(features[0].dtype)
    rois = rois.to(dtype)
    is_finite = torch.isfinite(rois).all(dim=1) & (rois[:, 0] >= 0) & (rois[:, 0] < features[0].shape[0])
    total: Tensor | None = None
    for level, (feature, scale) in enumerate(zip(features, spatial_scales, strict=True)):
        sides = (rois[:, 3:] - rois[:, 1:3]) * scale
        belongs = is_finite & sides_are_valid(sides[:, 1], sides[:, 0], sampling_ratio)
        if levels is not None:
            belongs = belongs & (levels == level)
        # From -16 to -15 cells; the first column is the image.
        corner = -16 / scale + torch.arange(5, device=rois.device).ge(3).to(dtype) / scale
        outside = corner * torch.arange(5, device=rois.device).ge(1)
        pooled: Tensor = torch.ops.torchvision.roi_align(
            feature.to(dtype),
            torch.where(belongs[:, None], rois, outside),
            scale,
            output_height,
            output_width,
            max(sampling_ratio, 0),
            aligned,
        )
        total = pooled if total is None else total + pooled
    assert total is not None
    return total.to(features[0].dtype)
