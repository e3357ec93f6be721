"""The registered ops: checks, dispatch, shapes, gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hydet.kernels.dispatch import choose, forced_backend, triton_available
from hydet.kernels.roi_align.reference import (
    backward_reference,
    backward_torchvision,
    count_samples,
    forward_reference,
    forward_torchvision,
    upright_regions,
)

__all__ = ["check_pooling", "flatten_shapes", "roi_align", "unflatten_shapes"]


def check_pooling(
    features: Sequence[Tensor],
    rois: Tensor,
    numbers: int,
    output_size: Sequence[int],
    spatial_scales: Sequence[float],
    levels: Tensor | None,
) -> None:
    """Raise unless the arguments fit together; ``numbers`` is how many a region has."""
    if len(features) == 0 or len(features) != len(spatial_scales):
        raise ValueError(
            f"as many maps as spatial scales are wanted, at least one; got {len(features)} and {len(spatial_scales)}"
        )
    first = features[0]
    for level, feature in enumerate(features):
        if feature.ndim != 4 or feature.shape[:2] != first.shape[:2]:
            raise ValueError(
                f"maps must be (N, C, H, W) with one N and C, got {tuple(feature.shape)} on level {level} and "
                f"{tuple(first.shape)} on level 0"
            )
        if not feature.is_floating_point() or feature.dtype != first.dtype:
            raise TypeError(f"maps must have one floating point dtype, got {first.dtype} and {feature.dtype}")
        if feature.device != rois.device:
            raise ValueError(f"maps and rois must be on one device, got {feature.device} and {rois.device}")
    if rois.ndim != 2 or rois.shape[1] != numbers:
        raise ValueError(f"rois must be (R, {numbers}), image index first, got {tuple(rois.shape)}")
    if not rois.is_floating_point():
        raise TypeError(f"rois must be floating point, got {rois.dtype}")
    if len(output_size) != 2 or any(side < 1 for side in output_size):
        raise ValueError(f"output_size must be (height, width), both positive, got {output_size}")
    if levels is None:
        if len(features) > 1:
            raise ValueError(f"{len(features)} maps need the level of each region")
    elif levels.shape != rois.shape[:1] or levels.dtype != torch.int64:
        raise ValueError(
            f"levels must be int64 of shape ({rois.shape[0]},), got {levels.dtype} {tuple(levels.shape)}"
        )


def flatten_shapes(features: Sequence[Tensor]) -> list[int]:
    """Shapes of the maps as one list, which an op can take: N, C, then H and W of each level."""
    shape = list(features[0].shape[:2])
    for feature in features:
        shape += feature.shape[2:]
    return shape


def unflatten_shapes(flat: Sequence[int]) -> list[tuple[int, int, int, int]]:
    """The inverse of ``flatten_shapes``, as (N, C, H, W) of each level."""
    return [(flat[0], flat[1], flat[i], flat[i + 1]) for i in range(2, len(flat), 2)]


def _backend(
    pooled: Sequence[int],
    shapes: Sequence[Sequence[int]],
    like: Tensor,
    samples: Callable[[], int] | None = None,
) -> str:
    """Backend for a call: the preferred one, but for what torchvision is known to do badly.

    Args:
        pooled: shape of the output, ``(R, C, h, w)``.
        shapes: ``(N, C, H, W)`` of each map.
        like: a tensor of the dtype and on the device.
        samples: counts those of all bins; None for the gradient.
    """
    backend = choose("roi_align", like.device)
    if backend != "torchvision" or forced_backend() is not None:
        return backend
    if like.device.type == "cpu":
        # The torch path pays for a pass over the maps, which turns cells into rows of channels, and for the numbers of
        # each sample; torchvision for each sample and channel, in one thread. Measured: 1,000 regions of 256 channels
        # forward 106 to 384 ms, 512 backward 62 to 616 ms; as fast as each other a little before this changes its mind.
        regions, channels, height, width = pooled
        cells = sum(shape[0] * shape[2] * shape[3] for shape in shapes)
        if samples is None:
            many = channels >= 16 and 20 * regions * height * width >= cells
        else:
            many = channels >= 32 and samples() >= 0.8 * cells
        return "reference" if many else "torchvision"
    if like.dtype in (torch.float16, torch.bfloat16) and triton_available():
        return "triton"  # torchvision has no bfloat16 there, and adds in half what is half
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
    pooled = (rois.shape[0], features[0].shape[1], *size)
    geometry = partial(upright_regions, output_size=size, sampling_ratio=sampling_ratio, aligned=aligned)
    backend = _backend(
        pooled,
        [f.shape for f in features],
        features[0],
        lambda: count_samples(rois, levels, size, spatial_scales, geometry),
    )
    if backend == "triton":
        from hydet.kernels.roi_align.triton_impl import launch_forward

        return launch_forward(features, rois, levels, size, spatial_scales, sampling_ratio, aligned)
    if backend == "torchvision":
        return forward_torchvision(features, rois, levels, size, spatial_scales, sampling_ratio, aligned)
    return forward_reference(features, rois, levels, size, spatial_scales, geometry)


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
) -> list[Tensor]:
    unflat = unflatten_shapes(shapes)
    backend = _backend(grad.shape, unflat, grad)
    deterministic = torch.are_deterministic_algorithms_enabled()
    if backend == "torchvision" and grad.is_cuda and deterministic:
        backend = "triton" if triton_available() else "reference"
    if backend == "triton":
        from hydet.kernels.roi_align.triton_impl import launch_backward

        return launch_backward(
            grad, rois, levels, unflat, spatial_scales, sampling_ratio, aligned, deterministic
        )
    if backend == "torchvision":
        return backward_torchvision(grad, rois, levels, unflat, spatial_scales, sampling_ratio, aligned)
    size = (grad.shape[2], grad.shape[3])
    geometry = partial(upright_regions, output_size=size, sampling_ratio=sampling_ratio, aligned=aligned)
    return backward_reference(grad, rois, levels, unflat, spatial_scales, geometry)


@_roi_align_backward.register_fake
def _(
    grad: Tensor,
    rois: Tensor,
    levels: Tensor | None,
    shapes: Sequence[int],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
    aligned: bool,
) -> list[Tensor]:
    return [grad.new_empty(shape) for shape in unflatten_shapes(shapes)]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, rois, levels, _, _, *ctx.settings = inputs
    ctx.save_for_backward(rois, levels)
    ctx.shapes = flatten_shapes(features)


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    rois, levels = ctx.saved_tensors
    grads = _roi_align_backward(grad, rois, levels, ctx.shapes, *ctx.settings)
    return grads, None, None, None, None, None, None, None


_roi_align.register_autograd(_backward, setup_context=_setup_context)


def _setup_double_context(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    grad, rois, levels, _, *ctx.settings = inputs
    ctx.save_for_backward(rois, levels)
    ctx.size = grad.shape[2:]


def _double_backward(ctx: Any, grads: list[Tensor]) -> tuple[Any, ...]:
    rois, levels = ctx.saved_tensors  # pooling is linear, so the gradient of its gradient is pooling
    pooled = _roi_align(grads, rois, levels, *ctx.size, *ctx.settings)
    return pooled, None, None, None, None, None, None


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
    """Mean of bilinear samples in each bin of upright regions, each region read from its own level of a pyramid.

    Computes in float32, or float64 for float64 maps. The gradient is that of the maps; it is added up in a fixed
    order on a CPU, and elsewhere under ``torch.use_deterministic_algorithms(True)``.

    Args:
        features: maps ``(N, C, Hi, Wi)`` of one dtype, with any strides.
        rois: ``(R, 5)`` as (image index, x1, y1, x2, y2) in pixels. They keep their precision where the maps are
            half or bfloat16.
        output_size: (height, width) of the output, in bins.
        spatial_scales: map cells a pixel of each level.
        levels: ``(R,)`` int64 index into ``features``; may be left out for one map.
        sampling_ratio: samples a bin and axis; 0 or less for as many as the region's size asks for.
        aligned: shift by half a cell, so that cell centres are where they belong. Otherwise regions count as at
            least one cell wide and high.

    Returns:
        ``(R, C, height, width)`` of the maps' dtype. Samples more than one cell outside a map count as 0. All zero
        for a region with a number that is not finite, of an image or a level that there is not, and, with adaptive
        sampling, with a side of more than 4,096 cells.

    Raises:
        ValueError: if shapes, devices or numbers of levels do not fit.
        TypeError: if the maps are not of one floating point dtype, or ``rois`` is not floating point.

    Source: He et al. 2017 (arXiv:1703.06870), section 3; the levels are those of Lin et al. 2017 (arXiv:1612.03144).
    """
    features = list(features)
    check_pooling(features, rois, 5, output_size, spatial_scales, levels)
    height, width = output_size
    scales = [float(scale) for scale in spatial_scales]
    return _roi_align(
        features, rois.detach(), levels, height, width, scales, int(sampling_ratio), bool(aligned)
    )
