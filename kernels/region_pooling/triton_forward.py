"""Pooling of upright and rotated regions as a Triton kernel: all levels of a pyramid in one launch."""

# mypy: ignore-errors
# Triton's language is not Python's.

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from hydet.kernels.region_pooling.regions import LONGEST_SIDE
from hydet.kernels.region_pooling.triton_regions import (
    bilinear_corners,
    bins_per_block,
    channels_per_block,
    load_level,
    load_region,
)

__all__ = ["launch_forward"]


@triton.jit
def _forward_kernel(
    maps,
    heights,
    widths,
    strides_n,
    strides_c,
    strides_y,
    strides_x,
    scales,
    rois_ptr,
    levels_ptr,
    out_ptr,
    stride_roi,
    stride_field,
    num_images,
    num_channels,
    sampling_ratio,
    NUM_LEVELS: tl.constexpr,
    HAS_LEVELS: tl.constexpr,
    OUT_H: tl.constexpr,
    OUT_W: tl.constexpr,
    ALIGNED: tl.constexpr,
    ROTATED: tl.constexpr,
    LONGEST_SIDE: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    r = tl.program_id(0)
    p = tl.program_id(1) * BLOCK_P + tl.arange(0, BLOCK_P)
    channel = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    level = load_level(levels_ptr, r, HAS_LEVELS)
    map_ptr = maps[0]
    height = heights[0]
    width = widths[0]
    stride_n = strides_n[0]
    stride_c = strides_c[0]
    stride_y = strides_y[0]
    stride_x = strides_x[0]
    scale = scales[0]
    for k in tl.static_range(1, NUM_LEVELS):
        is_level = level == k
        map_ptr = tl.where(is_level, maps[k], map_ptr)
        height = tl.where(is_level, heights[k], height)
        width = tl.where(is_level, widths[k], width)
        stride_n = tl.where(is_level, strides_n[k], stride_n)
        stride_c = tl.where(is_level, strides_c[k], stride_c)
        stride_y = tl.where(is_level, strides_y[k], stride_y)
        stride_x = tl.where(is_level, strides_x[k], stride_x)
        scale = tl.where(is_level, scales[k], scale)
    level_exists = (level >= 0) & (level < NUM_LEVELS)
    image, y0, x0, start_y, start_x, bin_h, bin_w, rows, columns, cos, sin = load_region(
        rois_ptr, r, stride_roi, stride_field, scale, level_exists, num_images, sampling_ratio,
        OUT_H, OUT_W, ALIGNED, ROTATED, LONGEST_SIDE,
    )  # fmt: skip
    in_c = channel < num_channels
    in_p = p < OUT_H * OUT_W
    base = map_ptr + image * stride_n + channel.to(tl.int64)[None, :] * stride_c
    bin_y = start_y + (p // OUT_W).to(tl.float32) * bin_h
    bin_x = start_x + (p % OUT_W).to(tl.float32) * bin_w
    step_y = tl.div_rn(bin_h, tl.maximum(rows, 1).to(tl.float32))
    step_x = tl.div_rn(bin_w, tl.maximum(columns, 1).to(tl.float32))
    total = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    for i in range(rows):
        down = bin_y + (i + 0.5) * step_y
        for j in range(columns):
            across = bin_x + (j + 0.5) * step_x
            if ROTATED:
                y = down * cos - across * sin + y0
                x = down * sin + across * cos + x0
            else:
                y = down
                x = across
            inside, top, left, step_below, step_right, dy, dx = bilinear_corners(y, x, height, width)
            mask = (inside & in_p)[:, None] & in_c[None, :]
            cell = base + (top.to(tl.int64) * stride_y + left.to(tl.int64) * stride_x)[:, None]
            to_right = (step_right.to(tl.int64) * stride_x)[:, None]
            to_below = (step_below.to(tl.int64) * stride_y)[:, None]
            a = tl.load(cell, mask=mask, other=0.0).to(tl.float32)
            b = tl.load(cell + to_right, mask=mask, other=0.0).to(tl.float32)
            c = tl.load(cell + to_below, mask=mask, other=0.0).to(tl.float32)
            d = tl.load(cell + to_below + to_right, mask=mask, other=0.0).to(tl.float32)
            total += ((1.0 - dy) * (1.0 - dx))[:, None] * a
            total += ((1.0 - dy) * dx)[:, None] * b
            total += (dy * (1.0 - dx))[:, None] * c
            total += (dy * dx)[:, None] * d
    total = total / tl.maximum(rows * columns, 1).to(tl.float32)
    offset = (r.to(tl.int64) * num_channels + channel.to(tl.int64))[None, :] * (OUT_H * OUT_W) + p[:, None]
    tl.store(out_ptr + offset, total.to(out_ptr.dtype.element_ty), mask=in_p[:, None] & in_c[None, :])


def launch_forward(
    features: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor | None,
    output_size: tuple[int, int],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
    *,
    aligned: bool,
    rotated: bool,
) -> Tensor:
    """Pool regions to ``(R, C, h, w)`` in float32. Maps and rois may have any strides."""
    num_images, channels = features[0].shape[:2]
    out = features[0].new_empty(rois.shape[0], channels, *output_size)
    if out.numel() == 0:
        return out
    if num_images == 0:
        return out.zero_()
    rois = rois.float()
    num_bins = output_size[0] * output_size[1]
    block_p, block_c = bins_per_block(num_bins), channels_per_block(channels)
    grid = (rois.shape[0], triton.cdiv(num_bins, block_p), triton.cdiv(channels, block_c))
    _forward_kernel[grid](
        tuple(features),
        tuple(f.shape[2] for f in features),
        tuple(f.shape[3] for f in features),
        tuple(f.stride(0) for f in features),
        tuple(f.stride(1) for f in features),
        tuple(f.stride(2) for f in features),
        tuple(f.stride(3) for f in features),
        tuple(float(scale) for scale in spatial_scales),
        rois,
        rois if levels is None else levels.contiguous(),
        out,
        rois.stride(0),
        rois.stride(1),
        num_images,
        channels,
        sampling_ratio,
        NUM_LEVELS=len(features),
        HAS_LEVELS=levels is not None,
        OUT_H=output_size[0],
        OUT_W=output_size[1],
        ALIGNED=aligned,
        ROTATED=rotated,
        LONGEST_SIDE=LONGEST_SIDE,
        BLOCK_P=block_p,
        BLOCK_C=block_c,
        enable_fp_fusion=False,  # fused multiply-add could change the number of samples
    )
    return out
