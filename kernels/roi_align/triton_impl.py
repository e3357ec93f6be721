"""Pooling of upright regions with the Triton kernels of ``region_pooling``."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from hydet.kernels.region_pooling import triton_backward, triton_forward

__all__ = ["launch_backward", "launch_forward"]


def launch_forward(
    features: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor | None,
    output_size: tuple[int, int],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """Compute ``roi_align``."""
    return triton_forward.launch_forward(
        features, rois, levels, output_size, spatial_scales, sampling_ratio, aligned=aligned, rotated=False
    )


def launch_backward(
    grad: Tensor,
    rois: Tensor,
    levels: Tensor | None,
    shapes: Sequence[Sequence[int]],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
    aligned: bool,
    deterministic: bool,
) -> list[Tensor]:
    """Return the gradients of the maps, given the gradient of the output."""
    return triton_backward.launch_backward(
        grad,
        rois,
        levels,
        shapes,
        spatial_scales,
        sampling_ratio,
        aligned=aligned,
        rotated=False,
        deterministic=deterministic,
    )
