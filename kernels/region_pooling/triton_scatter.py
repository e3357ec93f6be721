"""Gradient of pooling by atomic sums: fast, but the order of the sums is not fixed.

The kernel visits the samples like the forward kernel and adds the share of each sample to its four cells.
"""

# mypy: ignore-errors
# Triton's language is not Python's.

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from hydet.kernels.region_pooling.triton_regions import bilinear_corners, load_level, load_region

__all__ = ["launch_scatter"]


@triton.jit
def _backward_scatter_kernel(
    grads,
    heights,
    widths,
    scales,
    rois_ptr,
    levels_ptr,
    grad_ptr,
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
    map_ptr = grads[0]
    height = heights[0]
    width = widths[0]
    scale = scales[0]
    for k in tl.static_range(1, NUM_LEVELS):
        is_level = level == k
        map_ptr = tl.where(is_level, grads[k], map_ptr)
        height = tl.where(is_level, heights[k], height)
        width = tl.where(is_level, widths[k], width)
        scale = tl.where(is_level, scales[k], scale)
    level_exists = (level >= 0) & (level < NUM_LEVELS)
    image, y0, x0, start_y, start_x, bin_h, bin_w, rows, columns, cos, sin = load_region(
        rois_ptr, r, stride_roi, stride_field, scale, level_exists, num_images, sampling_ratio,
        OUT_H, OUT_W, ALIGNED, ROTATED, LONGEST_SIDE,
    )  # fmt: skip
    in_c = channel < num_channels
    in_p = p < OUT_H * OUT_W
    offset = (r.to(tl.int64) * num_channels + channel.to(tl.int64))[None, :] * (OUT_H * OUT_W) + p[:, None]
    sample_grad = tl.load(grad_ptr + offset, mask=in_p[:, None] & in_c[None, :], other=0.0).to(tl.float32)
    sample_grad = sample_grad / tl.maximum(rows * columns, 1).to(tl.float32)
    base = map_ptr + (image * num_channels + channel.to(tl.int64))[None, :] * height * width
    bin_y = start_y + (p // OUT_W).to(tl.float32) * bin_h
    bin_x = start_x + (p % OUT_W).to(tl.float32) * bin_w
    step_y = tl.div_rn(bin_h, tl.maximum(rows, 1).to(tl.float32))
    step_x = tl.div_rn(bin_w, tl.maximum(columns, 1).to(tl.float32))
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
            cell = base + (top * width + left)[:, None]
            to_right = step_right[:, None]
            to_below = (step_below * width)[:, None]
            tl.atomic_add(cell, ((1.0 - dy) * (1.0 - dx))[:, None] * sample_grad, mask=mask, sem="relaxed")
            tl.atomic_add(cell + to_right, ((1.0 - dy) * dx)[:, None] * sample_grad, mask=mask, sem="relaxed")
            tl.atomic_add(cell + to_below, (dy * (1.0 - dx))[:, None] * sample_grad, mask=mask, sem="relaxed")
            tl.atomic_add(
                cell + to_below + to_right, (dy * dx)[:, None] * sample_grad, mask=mask, sem="relaxed"
            )


def launch_scatter(
    grad: Tensor,
    rois: Tensor,
    levels: Tensor | None,
    shapes: Sequence[Sequence[int]],
    scales: tuple[float, ...],
    sampling_ratio: int,
    settings: dict[str, int],
) -> list[Tensor]:
    """Return the gradients of the maps; see ``triton_backward`` for the settings."""
    # Atomic sums are in float32 for every dtype of the maps.
    grads = [torch.zeros(list(shape), dtype=torch.float32, device=grad.device) for shape in shapes]
    num_regions, channels, height, width = grad.shape
    grid = (
        num_regions,
        triton.cdiv(height * width, settings["BLOCK_P"]),
        triton.cdiv(channels, settings["BLOCK_C"]),
    )
    _backward_scatter_kernel[grid](
        tuple(grads),
        tuple(shape[2] for shape in shapes),
        tuple(shape[3] for shape in shapes),
        scales,
        rois,
        rois if levels is None else levels.contiguous(),
        grad,
        rois.stride(0),
        rois.stride(1),
        shapes[0][0],
        channels,
        sampling_ratio,
        HAS_LEVELS=levels is not None,
        **settings,
    )
    return [map_grad.to(grad.dtype) for map_grad in grads]
