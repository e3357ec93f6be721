"""Device functions and block sizes that the forward and backward kernels share."""

# mypy: ignore-errors
# Triton's language is not Python's.

from __future__ import annotations

import triton
import triton.language as tl

from hydet.kernels.dispatch import triton_interprets

__all__ = ["bilinear_corners", "bins_per_block", "channels_per_block", "load_level", "load_region"]


@triton.jit
def load_region(
    rois_ptr,
    r,
    stride_roi,
    stride_field,
    scale,
    level_exists,
    num_images,
    sampling_ratio,
    OUT_H: tl.constexpr,
    OUT_W: tl.constexpr,
    ALIGNED: tl.constexpr,
    ROTATED: tl.constexpr,
    LONGEST_SIDE: tl.constexpr,
):
    """Load one region, in cells of its map.

    Returns the image, the center of rotation, the start of the first bin relative to it (absolute for upright regions),
    the size of a bin, the rows and columns of samples per bin (0 for invalid regions), and the cosine and sine.
    """
    start = rois_ptr + r.to(tl.int64) * stride_roi
    image = tl.load(start)
    a = tl.load(start + stride_field)
    b = tl.load(start + 2 * stride_field)
    c = tl.load(start + 3 * stride_field)
    d = tl.load(start + 4 * stride_field)
    limit = float("inf")
    valid = level_exists & (image >= 0) & (image < num_images)
    valid = valid & (tl.abs(a) < limit) & (tl.abs(b) < limit) & (tl.abs(c) < limit) & (tl.abs(d) < limit)
    if ROTATED:
        angle = tl.load(start + 5 * stride_field)
        valid = valid & (tl.abs(angle) < limit)
        x = a * scale - 0.5
        y = b * scale - 0.5
        width = c * scale
        height = d * scale
        start_y = height * -0.5
        start_x = width * -0.5
        # Subtract whole turns first: fma rounds once, and sin and cos are accurate and cheap for small angles.
        turns = tl.floor(angle * (1.0 / 360.0) + 0.5)
        radians = tl.where(valid, tl.fma(turns, -360.0, angle), 0.0) * 0.017453292519943295
        cos = tl.cos(radians)
        sin = tl.sin(radians)
    else:
        if ALIGNED:
            x = a * scale - 0.5
            y = b * scale - 0.5
            width = c * scale - 0.5 - x
            height = d * scale - 0.5 - y
        else:
            x = a * scale
            y = b * scale
            width = tl.maximum(c * scale - x, 1.0)
            height = tl.maximum(d * scale - y, 1.0)
        start_y = y
        start_x = x
        cos = x * 0.0 + 1.0
        sin = x * 0.0
    if sampling_ratio <= 0:
        longest_side = float(LONGEST_SIDE)
        valid = valid & (height > 0) & (width > 0) & (height <= longest_side) & (width <= longest_side)
    valid = valid & (tl.abs(height) < limit) & (tl.abs(width) < limit)
    height = tl.where(valid, height, 0.0)
    width = tl.where(valid, width, 0.0)
    bin_h = tl.div_rn(height, 1.0 * OUT_H)
    bin_w = tl.div_rn(width, 1.0 * OUT_W)
    if sampling_ratio > 0:
        rows = tl.where(valid, sampling_ratio, 0)
        columns = tl.where(valid, sampling_ratio, 0)
    else:
        rows = tl.ceil(bin_h).to(tl.int32)
        columns = tl.ceil(bin_w).to(tl.int32)
    image = tl.where(valid, image, 0.0).to(tl.int64)
    return image, y, x, start_y, start_x, bin_h, bin_w, rows, columns, cos, sin


@triton.jit
def load_level(levels_ptr, r, HAS_LEVELS: tl.constexpr):
    """Load the level of region ``r``; 0 without levels."""
    if HAS_LEVELS:
        level = tl.load(levels_ptr + r).to(tl.int32)
    else:
        level = r.to(tl.int32) * 0
    return level


@triton.jit
def bilinear_corners(y, x, height, width):
    """Return the cells around positions, and the weights of bilinear interpolation.

    Returns whether positions count (up to one cell outside of the map), the upper left cell, the steps to the cells below
    and to the right (0 at the edge), and the weights of those cells.
    """
    last_y = tl.where(width > 0, height, -2)  # nothing is inside of an empty map
    last_x = tl.where(height > 0, width, -2)
    inside = (y >= -1.0) & (y <= last_y) & (x >= -1.0) & (x <= last_x)
    y = tl.where(inside, tl.minimum(tl.maximum(y, 0.0), height - 1.0), 0.0)
    x = tl.where(inside, tl.minimum(tl.maximum(x, 0.0), width - 1.0), 0.0)
    top = tl.floor(y)
    left = tl.floor(x)
    dy = y - top
    dx = x - left
    top = top.to(tl.int32)
    left = left.to(tl.int32)
    return inside, top, left, (top < height - 1).to(tl.int32), (left < width - 1).to(tl.int32), dy, dx


def channels_per_block(channels: int) -> int:
    """Return the number of channels that one program computes."""
    # The interpreter pays per operation, not per element, so it gets few and large blocks.
    return min(triton.next_power_of_2(max(channels, 16)), 256 if triton_interprets() else 32)


def bins_per_block(num_bins: int) -> int:
    """Return the number of bins that one program computes."""
    return min(triton.next_power_of_2(max(num_bins, 16)), 1024 if triton_interprets() else 64)
