"""Pooling of upright regions with torchvision's op, one level at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import roi_align as torchvision_roi_align

from hydet.kernels.region_pooling.regions import sides_are_valid, working_dtype

__all__ = ["backward_torchvision", "forward_torchvision"]


def _move_invalid_regions(rois: Tensor, scale: float, num_images: int, sampling_ratio: int) -> Tensor:
    """Move invalid regions to where all samples lie outside of the map, because torchvision reads any address."""
    sides = (rois[:, 3:] - rois[:, 1:3]) * scale
    valid = torch.isfinite(rois).all(dim=1) & (rois[:, 0] >= 0) & (rois[:, 0] < num_images)
    valid &= sides_are_valid(sides[:, 1], sides[:, 0], sampling_ratio)
    outside = rois.new_tensor([0.0, -16.0, -16.0, -15.0, -15.0]).div_(scale)
    return torch.where(valid[:, None], rois, outside)


def forward_torchvision(
    features: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor | None,
    output_size: tuple[int, int],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """Compute ``roi_align``."""
    num_images, channels = features[0].shape[:2]
    dtype = working_dtype(features[0].dtype)
    rois = rois.to(dtype)
    out = features[0].new_zeros(rois.shape[0], channels, *output_size)
    if out.numel() == 0:
        return out
    for level, (feature, scale) in enumerate(zip(features, spatial_scales, strict=True)):
        index = slice(None) if levels is None else (levels == level).nonzero().squeeze(1)
        if feature.numel() == 0 or rois[index].shape[0] == 0:
            continue
        level_rois = _move_invalid_regions(rois[index], scale, num_images, sampling_ratio)
        pooled = torchvision_roi_align(
            feature.to(dtype), level_rois, output_size, scale, sampling_ratio, aligned
        )
        out[index] = pooled.to(out.dtype)
    return out


def backward_torchvision(
    grad: Tensor,
    rois: Tensor,
    levels: Tensor | None,
    shapes: Sequence[Sequence[int]],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
    aligned: bool,
) -> list[Tensor]:
    """Return the gradients of the maps, given the gradient of the output. The order of sums on CUDA is not fixed."""
    dtype = working_dtype(grad.dtype)
    rois = rois.to(dtype)
    grads = []
    for level, (shape, scale) in enumerate(zip(shapes, spatial_scales, strict=True)):
        index = slice(None) if levels is None else (levels == level).nonzero().squeeze(1)
        level_grad = grad[index].to(dtype)
        if level_grad.numel() == 0 or math.prod(shape) == 0:
            grads.append(grad.new_zeros(list(shape)))
            continue
        level_rois = _move_invalid_regions(rois[index], scale, shape[0], sampling_ratio)
        map_grad = torch.ops.torchvision._roi_align_backward(
            level_grad.contiguous(),
            level_rois,
            scale,
            grad.shape[2],
            grad.shape[3],
            *shape,
            sampling_ratio,
            aligned,
        )
        grads.append(map_grad.to(grad.dtype))
    return grads
