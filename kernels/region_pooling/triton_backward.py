"""Gradient of the pooling of regions, upright and rotated, with Triton: all levels of a pyramid in one launch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hydet.kernels.region_pooling.regions import LONGEST_SIDE
from hydet.kernels.region_pooling.triton_gather import launch_gather
from hydet.kernels.region_pooling.triton_regions import bins_per_block, channels_per_block
from hydet.kernels.region_pooling.triton_scatter import launch_scatter

__all__ = ["launch_backward"]


def launch_backward(
    grad: Tensor,
    rois: Tensor,
    levels: Tensor | None,
    shapes: Sequence[Sequence[int]],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
    *,
    aligned: bool,
    rotated: bool,
    deterministic: bool,
) -> list[Tensor]:
    """Return the gradients of the maps, contiguous and of the dtype of ``grad``, given the gradient of the output."""
    if grad.numel() == 0 or shapes[0][0] == 0:
        return [torch.zeros(list(shape), dtype=grad.dtype, device=grad.device) for shape in shapes]
    settings = {
        "NUM_LEVELS": len(shapes),
        "OUT_H": grad.shape[2],
        "OUT_W": grad.shape[3],
        "ALIGNED": aligned,
        "ROTATED": rotated,
        "LONGEST_SIDE": LONGEST_SIDE,
        "BLOCK_P": bins_per_block(grad.shape[2] * grad.shape[3]),
        "BLOCK_C": channels_per_block(grad.shape[1]),
        "enable_fp_fusion": False,  # fused multiply-add could change the number of samples
    }
    launch = launch_gather if deterministic else launch_scatter
    scales = tuple(float(scale) for scale in spatial_scales)
    return launch(grad.contiguous(), rois.float(), levels, shapes, scales, sampling_ratio, settings)
