"""The ops ``hydet::roi_align`` and ``hydet::roi_align_backward``: checks, dispatch, fake kernels and gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from hydet.kernels.autograd import AutogradContext
from hydet.kernels.dispatch import Backend, Preference, forced_backend, triton_available
from hydet.kernels.region_pooling.arguments import (
    are_channels_last,
    check_arguments,
    empty_maps,
    flatten_shapes,
    reorder_maps,
    unflatten_shapes,
)
from hydet.kernels.roi_align.torch_impl import backward_torch, count_samples, forward_torch

__all__ = ["PREFERENCE", "roi_align"]

# torchvision stays first on CUDA until a table in benchmarks/results shows that the Triton kernel is faster.
PREFERENCE = Preference("roi_align", cpu=("torchvision", "torch"), cuda=("torchvision", "triton", "torch"))


def _choose_backend(
    output_shape: Sequence[int],
    map_shapes: Sequence[Sequence[int]],
    tensor: Tensor,
    count_samples: Callable[[], int] | None = None,
    is_channels_last: bool = False,
) -> Backend:
    """Return the preferred backend, or another one where torchvision's op is known to be slow or inaccurate.

    Args:
        output_shape: ``(R, C, h, w)`` of the output.
        map_shapes: ``(N, C, H, W)`` of each map.
        tensor: a tensor that has the dtype and device of the maps.
        count_samples: function that returns the number of samples in all bins; None for the backward pass.
        is_channels_last: True if the maps are stored so.
    """
    backend = PREFERENCE.choose(tensor.device)
    if backend != "torchvision" or forced_backend() is not None:
        return backend
    if tensor.device.type == "cpu":
        # The PyTorch implementation pays once per sample, and once per cell to store cells as rows of channels, unless
        # they are. torchvision pays per sample and channel, in a single thread, and copies maps that are channels last.
        # Measured with many samples: 1,000 regions of 256 channels take 106 against 384 ms forward, 512 regions 62
        # against 616 ms backward. Both are equally fast slightly below the limits here.
        num_regions, channels, height, width = output_shape
        num_cells = sum(shape[0] * shape[2] * shape[3] for shape in map_shapes)
        if is_channels_last:
            has_many_samples = channels >= 16
        elif count_samples is None:
            has_many_samples = channels >= 16 and 20 * num_regions * height * width >= num_cells
        else:
            has_many_samples = channels >= 32 and count_samples() >= 0.8 * num_cells
        return "torch" if has_many_samples else "torchvision"
    if tensor.dtype in (torch.float16, torch.bfloat16) and triton_available():
        return "triton"  # torchvision has no bfloat16 kernel on CUDA, and adds float16 gradients in float16
    return backend


@torch.library.custom_op("hydet::roi_align", mutates_args=())
def _roi_align(
    features: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor | None,
    output_height: int,
    output_width: int,
    spatial_scales: Sequence[float],
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    size = (output_height, output_width)
    backend = _choose_backend(
        (rois.shape[0], features[0].shape[1], *size),
        [f.shape for f in features],
        features[0],
        lambda: count_samples(rois, levels, size, spatial_scales, sampling_ratio, aligned),
        are_channels_last(features),
    )
    if backend == "triton":
        from hydet.kernels.roi_align.triton_impl import launch_forward

        return launch_forward(features, rois, levels, size, spatial_scales, sampling_ratio, aligned)
    if backend == "torchvision":
        from hydet.kernels.roi_align.torchvision_impl import forward_torchvision

        return forward_torchvision(features, rois, levels, size, spatial_scales, sampling_ratio, aligned)
    return forward_torch(features, rois, levels, size, spatial_scales, sampling_ratio, aligned)


@_roi_align.register_fake
def _(
    features: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor | None,
    output_height: int,
    output_width: int,
    spatial_scales: Sequence[float],
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    first = features[0]
    return first.new_empty(rois.shape[0], first.shape[1], output_height, output_width)


@torch.library.custom_op("hydet::roi_align_backward", mutates_args=())
def _roi_align_backward(
    grad: Tensor,
    rois: Tensor,
    levels: Tensor | None,
    shapes: Sequence[int],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
    aligned: bool,
    channels_last: bool,
) -> list[Tensor]:
    map_shapes = unflatten_shapes(shapes)
    backend = _choose_backend(grad.shape, map_shapes, grad, is_channels_last=channels_last)
    deterministic = torch.are_deterministic_algorithms_enabled()
    if backend == "torchvision" and grad.is_cuda and deterministic:
        backend = "triton" if triton_available() else "torch"
    if backend == "triton":
        from hydet.kernels.roi_align.triton_impl import launch_backward

        grads = launch_backward(
            grad, rois, levels, map_shapes, spatial_scales, sampling_ratio, aligned, deterministic
        )
        return reorder_maps(grads, channels_last)
    if backend == "torchvision":
        from hydet.kernels.roi_align.torchvision_impl import backward_torchvision

        grads = backward_torchvision(grad, rois, levels, map_shapes, spatial_scales, sampling_ratio, aligned)
        return reorder_maps(grads, channels_last)
    return backward_torch(
        grad, rois, levels, map_shapes, spatial_scales, sampling_ratio, aligned, channels_last=channels_last
    )


@_roi_align_backward.register_fake
def _(
    grad: Tensor,
    rois: Tensor,
    levels: Tensor | None,
    shapes: Sequence[int],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
    aligned: bool,
    channels_last: bool,
) -> list[Tensor]:
    return empty_maps(grad, shapes, channels_last)


class _Context(AutogradContext, Protocol):
    shapes: list[int]
    channels_last: bool
    settings: tuple[Sequence[float], int, bool]  # spatial_scales, sampling_ratio, aligned


def _setup_context(
    ctx: _Context,
    inputs: tuple[Sequence[Tensor], Tensor, Tensor | None, int, int, Sequence[float], int, bool],
    output: Tensor,
) -> None:
    features, rois, levels, _, _, spatial_scales, sampling_ratio, aligned = inputs
    ctx.settings = (spatial_scales, sampling_ratio, aligned)
    ctx.shapes = flatten_shapes(features)
    ctx.channels_last = are_channels_last(features)
    ctx.save_for_backward(rois, levels)


def _backward(ctx: _Context, grad: Tensor) -> tuple[list[Tensor], None, None, None, None, None, None, None]:
    rois, levels = ctx.saved_tensors
    grads = _roi_align_backward(grad, rois, levels, ctx.shapes, *ctx.settings, ctx.channels_last)
    return grads, None, None, None, None, None, None, None


_roi_align.register_autograd(_backward, setup_context=_setup_context)


class _DoubleContext(AutogradContext, Protocol):
    output_size: Sequence[int]
    settings: tuple[Sequence[float], int, bool]


def _setup_double_context(
    ctx: _DoubleContext,
    inputs: tuple[Tensor, Tensor, Tensor | None, Sequence[int], Sequence[float], int, bool, bool],
    output: list[Tensor],
) -> None:
    grad, rois, levels, _, spatial_scales, sampling_ratio, aligned, _ = inputs
    ctx.settings = (spatial_scales, sampling_ratio, aligned)
    ctx.output_size = grad.shape[2:]
    ctx.save_for_backward(rois, levels)


def _double_backward(
    ctx: _DoubleContext, grads: list[Tensor]
) -> tuple[Tensor, None, None, None, None, None, None, None]:
    # Pooling is linear in the maps, so the gradient of its gradient is pooling again.
    rois, levels = ctx.saved_tensors
    height, width = ctx.output_size
    pooled = _roi_align(grads, rois, levels, height, width, *ctx.settings)
    return pooled, None, None, None, None, None, None, None


_roi_align_backward.register_autograd(_double_backward, setup_context=_setup_double_context)


def roi_align(
    features: Sequence[Tensor],
    rois: Tensor,
    *,
    output_size: tuple[int, int],
    spatial_scales: Sequence[float],
    levels: Tensor | None = None,
    sampling_ratio: int = 0,
    aligned: bool = True,
) -> Tensor:
    """Average bilinear samples in each bin of upright regions, each read from its own level of a pyramid.

    Computes in float32, or in float64 for float64 maps. Only the maps receive a gradient. Its sums have a fixed order on
    a CPU, and elsewhere under ``torch.use_deterministic_algorithms(True)``.

    Args:
        features: maps ``(N, C, Hi, Wi)`` of one dtype, with any strides.
        rois: ``(R, 5)`` as (image index, x1, y1, x2, y2) in pixels. They keep their precision if the maps are float16
            or bfloat16.
        output_size: (height, width) of the output, in bins.
        spatial_scales: map cells per pixel on each level.
        levels: ``(R,)`` int64 index into ``features``; optional for a single map.
        sampling_ratio: samples per bin and axis. If not positive, about one sample per cell.
        aligned: shift regions by half a cell, because cell centers lie at half-integer positions. If False, there is no
            shift and regions are at least one cell wide and high.

    Returns:
        ``(R, C, height, width)`` of the dtype of the maps. Samples more than one cell outside of a map count as 0. A
        region is all zero if it has a non-finite value, if its image or level does not exist, or, with adaptive
        sampling, if a side exceeds 4,096 cells.

    Raises:
        ValueError: if shapes, devices or the number of levels do not match.
        TypeError: if the maps do not share one floating point dtype, or ``rois`` is not floating point.

    Source: He et al. 2017 (arXiv:1703.06870), section 3; levels as in Lin et al. 2017 (arXiv:1612.03144).
    """
    features = list(features)
    check_arguments(features, rois, 5, output_size, spatial_scales, levels)
    height, width = output_size
    scales = [float(scale) for scale in spatial_scales]
    pooled: Tensor = _roi_align(
        features, rois.detach(), levels, height, width, scales, int(sampling_ratio), bool(aligned)
    )
    return pooled
