"""The registered ops: checks, dispatch, shapes, gradients."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hydet.kernels.dispatch import choose
from hydet.kernels.roi_align.op import check_pooling, flatten_shapes, unflatten_shapes
from hydet.kernels.roi_align.reference import backward_reference, forward_reference
from hydet.kernels.roi_align_rotated.reference import rotated_regions

__all__ = ["roi_align_rotated"]


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
    if choose("roi_align_rotated", rois.device) == "triton":
        from hydet.kernels.roi_align_rotated.triton_impl import launch_forward

        return launch_forward(features, rois, levels, size, spatial_scales, sampling_ratio)
    geometry = partial(rotated_regions, output_size=size, sampling_ratio=sampling_ratio)
    return forward_reference(features, rois, levels, size, spatial_scales, geometry)


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
) -> list[Tensor]:
    unflat = unflatten_shapes(shapes)
    if choose("roi_align_rotated", grad.device) == "triton":
        from hydet.kernels.roi_align_rotated.triton_impl import launch_backward

        deterministic = torch.are_deterministic_algorithms_enabled()
        return launch_backward(grad, rois, levels, unflat, spatial_scales, sampling_ratio, deterministic)
    geometry = partial(
        rotated_regions, output_size=(grad.shape[2], grad.shape[3]), sampling_ratio=sampling_ratio
    )
    return backward_reference(grad, rois, levels, unflat, spatial_scales, geometry)


@_roi_align_rotated_backward.register_fake
def _(
    grad: Tensor,
    rois: Tensor,
    levels: Tensor | None,
    shapes: Sequence[int],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
) -> list[Tensor]:
    return [grad.new_empty(shape) for shape in unflatten_shapes(shapes)]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, rois, levels, _, _, *ctx.settings = inputs
    ctx.save_for_backward(rois, levels)
    ctx.shapes = flatten_shapes(features)


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    rois, levels = ctx.saved_tensors
    grads = _roi_align_rotated_backward(grad, rois, levels, ctx.shapes, *ctx.settings)
    return grads, None, None, None, None, None, None


_roi_align_rotated.register_autograd(_backward, setup_context=_setup_context)


def _setup_double_context(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    grad, rois, levels, _, *ctx.settings = inputs
    ctx.save_for_backward(rois, levels)
    ctx.size = grad.shape[2:]


def _double_backward(ctx: Any, grads: list[Tensor]) -> tuple[Any, ...]:
    rois, levels = ctx.saved_tensors  # pooling is linear, so the gradient of its gradient is pooling
    pooled = _roi_align_rotated(grads, rois, levels, *ctx.size, *ctx.settings)
    return pooled, None, None, None, None, None


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
    """Mean of bilinear samples in each bin of rotated regions, each region read from its own level of a pyramid.

    Always aligned: cell centres are half a cell in. Precision, gradients and determinism are as in ``roi_align``.

    Args:
        features: maps ``(N, C, Hi, Wi)`` of one dtype, with any strides.
        rois: ``(R, 6)`` as (image index, cx, cy, w, h, degrees counter-clockwise in the image), lengths in pixels.
        output_size: (height, width) of the output, in bins.
        spatial_scales: map cells a pixel of each level.
        levels: ``(R,)`` int64 index into ``features``; may be left out for one map.
        sampling_ratio: samples a bin and axis; 0 or less for as many as the region's size asks for.

    Returns:
        ``(R, C, height, width)`` of the maps' dtype, the region turned upright. Samples more than one cell outside a
        map count as 0. All zero for a region with a number that is not finite, of an image or a level that there is
        not, and, with adaptive sampling, with a side that is not positive or has more than 4,096 cells.

    Raises:
        ValueError: if shapes, devices or numbers of levels do not fit.
        TypeError: if the maps are not of one floating point dtype, or ``rois`` is not floating point.

    Source: Ma et al. 2017 (arXiv:1703.01086).
    """
    features = list(features)
    check_pooling(features, rois, 6, output_size, spatial_scales, levels)
    height, width = output_size
    scales = [float(scale) for scale in spatial_scales]
    return _roi_align_rotated(features, rois.detach(), levels, height, width, scales, int(sampling_ratio))
