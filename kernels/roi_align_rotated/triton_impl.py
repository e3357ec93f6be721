"""The kernels of ``roi_align``, told that regions are rotated."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from hydet.kernels.roi_align.triton_impl import backward_regions, forward_regions

__all__ = ["launch_backward", "launch_forward"]


def launch_forward(
    features: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor | None,
    output_size: tuple[int, int],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
) -> Tensor:
    """See ``roi_align_rotated``."""
    return forward_regions(
        features, rois, levels, output_size, spatial_scales, sampling_ratio, aligned=True, rotated=True
    )


def launch_backward(
    grad: Tensor,
    rois: Tensor,
    levels: Tensor | None,
    shapes: Sequence[Sequence[int]],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
    deterministic: bool,
) -> list[Tensor]:
    """Its gradient."""
    return backward_regions(
        grad,
        rois,
        levels,
        shapes,
        spatial_scales,
        sampling_ratio,
        aligned=True,
        rotated=True,
        deterministic=deterministic,
    )
