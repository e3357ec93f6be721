"""The ops ``hydet::roi_align_rotated`` and ``hydet::roi_align_rotated_backward``: checks, dispatch, fakes, gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from hydet.kernels.autograd import AutogradContext
from hydet.kernels.dispatch import Preference
from hydet.kernels.region_pooling.arguments import (
    are_channels_last,
    check_arguments,
    empty_maps,
    flatten_shapes,
    reorder_maps,
    unflatten_shapes,
)
from hydet.kernels.roi_align_rotated.torch_impl import backward_torch, forward_torch

__all__ = ["PREFERENCE", "roi_align_rotated"]

PREFERENCE = Preference("roi_align_rotated", cpu=("torch",), cuda=("triton", "torch"))


@torch.library.custom_op("hydet::roi_align_rotated", mutates_args=())
def _roi_align_rotated(
    features: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor | None,
    output_height: int,
    output_width: int,
    spatial_scales: Sequence[float],
    sampling_ratio: int,
) -> Tensor:
    size = (output_height, output_width)
    if PREFERENCE.choose(rois.device) == "triton":
        from hydet.kernels.roi_align_rotated.triton_impl import launch_forward

        return launch_forward(features, rois, levels, size, spatial_scales, sampling_ratio)
    return forward_torch(features, rois, levels, size, spatial_scales, sampling_ratio)


@_roi_align_rotated.register_fake
def _(
    features: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor | None,
    output_height: int,
    output_width: int,
    spatial_scales: Sequence[float],
    sampling_ratio: int,
) -> Tensor:
    first = features[0]
    return first.new_empty(rois.shape[0], first.shape[1], output_height, output_width)


@torch.library.custom_op("hydet::roi_align_rotated_backward", mutates_args=())
def _roi_align_rotated_backward(
    grad: Tensor,
    rois: Tensor,
    levels: Tensor | None,
    shapes: Sequence[int],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
    channels_last: bool,
) -> list[Tensor]:
    map_shapes = unflatten_shapes(shapes)
    if PREFERENCE.choose(grad.device) == "triton":
        from hydet.kernels.roi_align_rotated.triton_impl import launch_backward

        deterministic = torch.are_deterministic_algorithms_enabled()
        grads = launch_backward(grad, rois, levels, map_shapes, spatial_scales, sampling_ratio, deterministic)
        return reorder_maps(grads, channels_last)
    return backward_torch(
        grad, rois, levels, map_shapes, spatial_scales, sampling_ratio, channels_last=channels_last
    )


@_roi_align_rotated_backward.register_fake
def _(
    grad: Tensor,
    rois: Tensor,
    levels: Tensor | None,
    shapes: Sequence[int],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
    channels_last: bool,
) -> list[Tensor]:
    return empty_maps(grad, shapes, channels_last)


class _Context(AutogradContext, Protocol):
    shapes: list[int]
    channels_last: bool
    settings: tuple[Sequence[float], int]  # spatial_scales, sampling_ratio


def _setup_context(
    ctx: _Context,
    inputs: tuple[Sequence[Tensor], Tensor, Tensor | None, int, int, Sequence[float], int],
    output: Tensor,
) -> None:
    features, rois, levels, _, _, spatial_scales, sampling_ratio = inputs
    ctx.settings = (spatial_scales, sampling_ratio)
    ctx.shapes = flatten_shapes(features)
    ctx.channels_last = are_channels_last(features)
    ctx.save_for_backward(rois, levels)


def _backward(ctx: _Context, grad: Tensor) -> tuple[list[Tensor], None, None, None, None, None, None]:
    rois, levels = ctx.saved_tensors
    grads = _roi_align_rotated_backward(grad, rois, levels, ctx.shapes, *ctx.settings, ctx.channels_last)
    return grads, None, None, None, None, None, None


_roi_align_rotated.register_autograd(_backward, setup_context=_setup_context)


class _DoubleContext(AutogradContext, Protocol):
    output_size: Sequence[int]
    settings: tuple[Sequence[float], int]


def _setup_double_context(
    ctx: _DoubleContext,
    inputs: tuple[Tensor, Tensor, Tensor | None, Sequence[int], Sequence[float], int, bool],
    output: list[Tensor],
) -> None:
    grad, rois, levels, _, spatial_scales, sampling_ratio, _ = inputs
    ctx.settings = (spatial_scales, sampling_ratio)
    ctx.output_size = grad.shape[2:]
    ctx.save_for_backward(rois, levels)


def _double_backward(
    ctx: _DoubleContext, grads: list[Tensor]
) -> tuple[Tensor, None, None, None, None, None, None]:
    # Pooling is linear in the maps, so the gradient of its gradient is pooling again.
    rois, levels = ctx.saved_tensors
    height, width = ctx.output_size
    pooled = _roi_align_rotated(grads, rois, levels, height, width, *ctx.settings)
    return pooled, None, None, None, None, None, None


_roi_align_rotated_backward.register_autograd(_double_backward, setup_context=_setup_double_context)


def roi_align_rotated(
    features: Sequence[Tensor],
    rois: Tensor,
    *,
    output_size: tuple[int, int],
    spatial_scales: Sequence[float],
    levels: Tensor | None = None,
    sampling_ratio: int = 0,
) -> Tensor:
    """Average bilinear samples in each bin of rotated regions, each read from its own level of a pyramid.

    Regions are always aligned: they are shifted by half a cell, because cell centers lie at half-integer positions.
    Precision, gradients and determinism are those of ``roi_align``.

    Args:
        features: maps ``(N, C, Hi, Wi)`` of one dtype, with any strides.
        rois: ``(R, 6)`` as (image index, cx, cy, w, h, degrees counter-clockwise in the image), lengths in pixels.
        output_size: (height, width) of the output, in bins.
        spatial_scales: map cells per pixel on each level.
        levels: ``(R,)`` int64 index into ``features``; optional for a single map.
        sampling_ratio: samples per bin and axis. If not positive, about one sample per cell.

    Returns:
        ``(R, C, height, width)`` of the dtype of the maps, in the upright frame of each region. Samples more than one
        cell outside of a map count as 0. A region is all zero if it has a non-finite value, if its image or level does
        not exist, or, with adaptive sampling, if a side is not positive or exceeds 4,096 cells.

    Raises:
        ValueError: if shapes, devices or the number of levels do not match.
        TypeError: if the maps do not share one floating point dtype, or ``rois`` is not floating point.

    Source: Ma et al. 2017 (arXiv:1703.01086).
    """
    features = list(features)
    check_arguments(features, rois, 6, output_size, spatial_scales, levels)
    height, width = output_size
    scales = [float(scale) for scale in spatial_scales]
    pooled: Tensor = _roi_align_rotated(
        features, rois.detach(), levels, height, width, scales, int(sampling_ratio)
    )
    return pooled
