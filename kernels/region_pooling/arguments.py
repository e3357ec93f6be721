"""Checks and conversion of the arguments of ``roi_align`` and ``roi_align_rotated``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = [
    "are_channels_last",
    "check_arguments",
    "empty_maps",
    "flatten_shapes",
    "reorder_maps",
    "unflatten_shapes",
]


def check_arguments(
    features: Sequence[Tensor],
    rois: Tensor,
    roi_dim: int,
    output_size: Sequence[int],
    spatial_scales: Sequence[float],
    levels: Tensor | None,
) -> None:
    """Raise unless the arguments match each other; ``roi_dim`` is the expected number of columns of ``rois``."""
    if len(features) == 0 or len(features) != len(spatial_scales):
        raise ValueError(
            f"features and spatial scales must have the same length, at least 1; got {len(features)} and "
            f"{len(spatial_scales)}"
        )
    first = features[0]
    for level, feature in enumerate(features):
        if feature.ndim != 4 or feature.shape[:2] != first.shape[:2]:
            raise ValueError(
                f"features must be (N, C, H, W) with the same N and C, got {tuple(feature.shape)} on level {level} and "
                f"{tuple(first.shape)} on level 0"
            )
        if not feature.is_floating_point() or feature.dtype != first.dtype:
            raise TypeError(
                f"features must have one floating point dtype, got {first.dtype} and {feature.dtype}"
            )
        if feature.device != rois.device:
            raise ValueError(
                f"features and rois must be on the same device, got {feature.device} and {rois.device}"
            )
    if rois.ndim != 2 or rois.shape[1] != roi_dim:
        raise ValueError(f"rois must be (R, {roi_dim}), image index first, got {tuple(rois.shape)}")
    if not rois.is_floating_point():
        raise TypeError(f"rois must be floating point, got {rois.dtype}")
    if len(output_size) != 2 or any(side < 1 for side in output_size):
        raise ValueError(f"output_size must be (height, width), both positive, got {output_size}")
    if levels is None:
        if len(features) > 1:
            raise ValueError(f"{len(features)} feature maps need the level of each region")
    elif levels.shape != rois.shape[:1] or levels.dtype != torch.int64:
        raise ValueError(
            f"levels must be int64 of shape ({rois.shape[0]},), got {levels.dtype} {tuple(levels.shape)}"
        )


def are_channels_last(features: Sequence[Tensor]) -> bool:
    """Return True if every map is stored channels last."""
    return all(feature.is_contiguous(memory_format=torch.channels_last) for feature in features)


def flatten_shapes(features: Sequence[Tensor]) -> list[int]:
    """Return the shapes of the maps as a flat list, the form that ops accept: N, C, then H and W of each level."""
    shape = list(features[0].shape[:2])
    for feature in features:
        shape += feature.shape[2:]
    return shape


def unflatten_shapes(flat: Sequence[int]) -> list[tuple[int, int, int, int]]:
    """Invert ``flatten_shapes``: return (N, C, H, W) of each level."""
    return [(flat[0], flat[1], flat[i], flat[i + 1]) for i in range(2, len(flat), 2)]


def empty_maps(like: Tensor, flat_shapes: Sequence[int], channels_last: bool) -> list[Tensor]:
    """Allocate maps, given their shapes from ``flatten_shapes``, with the dtype and device of ``like``."""
    order = torch.channels_last if channels_last else torch.contiguous_format
    return [
        torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=order)
        for shape in unflatten_shapes(flat_shapes)
    ]


def reorder_maps(maps: list[Tensor], channels_last: bool) -> list[Tensor]:
    """Store contiguous maps channels last, if they should be."""
    return [m.contiguous(memory_format=torch.channels_last) for m in maps] if channels_last else maps
