"""Pooling of upright and rotated regions as Triton kernels: all levels of a pyramid in one launch.

Gradients come in two ways. ``_scatter_kernel`` walks over the samples as the forward does and adds atomically: fast,
in no fixed order. ``_gather_kernel`` has one program for each tile of a map, which adds up what every region over
that tile sends there, in the order of the regions: a bin's weights of the tile's cells are a small matrix, times the
gradient of the bins. It needs no memory but an order of the regions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from hydet.kernels.dispatch import triton_interprets
from hydet.kernels.roi_align.reference import LONGEST_SIDE

__all__ = ["backward_regions", "forward_regions", "launch_backward", "launch_forward"]


@triton.jit
def _load_region(
    rois_ptr,
    r,
    stride_roi,
    stride_number,
    scale,
    there,
    num_images,
    sampling_ratio,
    OUT_H: tl.constexpr,
    OUT_W: tl.constexpr,
    ALIGNED: tl.constexpr,
    ROTATED: tl.constexpr,
    LONGEST: tl.constexpr,
):
    """One region in cells: image, what offsets are added to, first offset, bin size, samples of a bin, rotation."""
    start = rois_ptr + r.to(tl.int64) * stride_roi
    image = tl.load(start)
    a = tl.load(start + stride_number)
    b = tl.load(start + 2 * stride_number)
    c = tl.load(start + 3 * stride_number)
    d = tl.load(start + 4 * stride_number)
    limit = float("inf")
    ok = there & (image >= 0) & (image < num_images)
    ok = ok & (tl.abs(a) < limit) & (tl.abs(b) < limit) & (tl.abs(c) < limit) & (tl.abs(d) < limit)
    if ROTATED:
        angle = tl.load(start + 5 * stride_number)
        ok = ok & (tl.abs(angle) < limit)
        x = a * scale - 0.5
        y = b * scale - 0.5
        width = c * scale
        height = d * scale
        start_y = height * -0.5
        start_x = width * -0.5
        turns = tl.floor(angle * (1.0 / 360.0) + 0.5)
        radians = tl.where(ok, tl.fma(turns, -360.0, angle), 0.0) * 0.017453292519943295
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
        longest = float(LONGEST)
        ok = ok & (height > 0) & (width > 0) & (height <= longest) & (width <= longest)
    ok = ok & (tl.abs(height) < limit) & (tl.abs(width) < limit)
    height = tl.where(ok, height, 0.0)
    width = tl.where(ok, width, 0.0)
    bin_h = tl.div_rn(height, 1.0 * OUT_H)
    bin_w = tl.div_rn(width, 1.0 * OUT_W)
    if sampling_ratio > 0:
        rows = tl.where(ok, sampling_ratio, 0)
        columns = tl.where(ok, sampling_ratio, 0)
    else:
        rows = tl.ceil(bin_h).to(tl.int32)
        columns = tl.ceil(bin_w).to(tl.int32)
    image = tl.where(ok, image, 0.0).to(tl.int64)
    return image, y, x, start_y, start_x, bin_h, bin_w, rows, columns, cos, sin


@triton.jit
def _level_of(levels_ptr, r, HAS_LEVELS: tl.constexpr):
    if HAS_LEVELS:
        level = tl.load(levels_ptr + r).to(tl.int32)
    else:
        level = r.to(tl.int32) * 0
    return level


@triton.jit
def _corners(y, x, height, width):
    """Cells around positions: whether they count, cells up and left, steps to the others, shares of the latter."""
    last_y = tl.where(width > 0, height, -2)  # an empty map has no inside
    last_x = tl.where(height > 0, width, -2)
    inside = (y >= -1.0) & (y <= last_y) & (x >= -1.0) & (x <= last_x)
    y = tl.where(inside, tl.minimum(tl.maximum(y, 0.0), height - 1.0), 0.0)
    x = tl.where(inside, tl.minimum(tl.maximum(x, 0.0), width - 1.0), 0.0)
    top = tl.floor(y)
    left = tl.floor(x)
    low = y - top
    right = x - left
    top = top.to(tl.int32)
    left = left.to(tl.int32)
    return inside, top, left, (top < height - 1).to(tl.int32), (left < width - 1).to(tl.int32), low, right


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
    stride_number,
    num_images,
    num_channels,
    sampling_ratio,
    NUM_LEVELS: tl.constexpr,
    HAS_LEVELS: tl.constexpr,
    OUT_H: tl.constexpr,
    OUT_W: tl.constexpr,
    ALIGNED: tl.constexpr,
    ROTATED: tl.constexpr,
    LONGEST: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    r = tl.program_id(0)
    p = tl.program_id(1) * BLOCK_P + tl.arange(0, BLOCK_P)
    channel = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    level = _level_of(levels_ptr, r, HAS_LEVELS)
    map_ptr = maps[0]
    height = heights[0]
    width = widths[0]
    stride_n = strides_n[0]
    stride_c = strides_c[0]
    stride_y = strides_y[0]
    stride_x = strides_x[0]
    scale = scales[0]
    for k in tl.static_range(1, NUM_LEVELS):
        here = level == k
        map_ptr = tl.where(here, maps[k], map_ptr)
        height = tl.where(here, heights[k], height)
        width = tl.where(here, widths[k], width)
        stride_n = tl.where(here, strides_n[k], stride_n)
        stride_c = tl.where(here, strides_c[k], stride_c)
        stride_y = tl.where(here, strides_y[k], stride_y)
        stride_x = tl.where(here, strides_x[k], stride_x)
        scale = tl.where(here, scales[k], scale)
    there = (level >= 0) & (level < NUM_LEVELS)
    image, y0, x0, start_y, start_x, bin_h, bin_w, rows, columns, cos, sin = _load_region(
        rois_ptr, r, stride_roi, stride_number, scale, there, num_images, sampling_ratio,
        OUT_H, OUT_W, ALIGNED, ROTATED, LONGEST,
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
            inside, top, left, step_down, step_right, low, right = _corners(y, x, height, width)
            mask = (inside & in_p)[:, None] & in_c[None, :]
            cell = base + (top.to(tl.int64) * stride_y + left.to(tl.int64) * stride_x)[:, None]
            to_right = (step_right.to(tl.int64) * stride_x)[:, None]
            to_below = (step_down.to(tl.int64) * stride_y)[:, None]
            a = tl.load(cell, mask=mask, other=0.0).to(tl.float32)
            b = tl.load(cell + to_right, mask=mask, other=0.0).to(tl.float32)
            c = tl.load(cell + to_below, mask=mask, other=0.0).to(tl.float32)
            d = tl.load(cell + to_below + to_right, mask=mask, other=0.0).to(tl.float32)
            total += ((1.0 - low) * (1.0 - right))[:, None] * a
            total += ((1.0 - low) * right)[:, None] * b
            total += (low * (1.0 - right))[:, None] * c
            total += (low * right)[:, None] * d
    total = total / tl.maximum(rows * columns, 1).to(tl.float32)
    place = (r.to(tl.int64) * num_channels + channel.to(tl.int64))[None, :] * (OUT_H * OUT_W) + p[:, None]
    tl.store(out_ptr + place, total.to(out_ptr.dtype.element_ty), mask=in_p[:, None] & in_c[None, :])


@triton.jit
def _scatter_kernel(
    grads,
    heights,
    widths,
    scales,
    rois_ptr,
    levels_ptr,
    grad_ptr,
    stride_roi,
    stride_number,
    num_images,
    num_channels,
    sampling_ratio,
    NUM_LEVELS: tl.constexpr,
    HAS_LEVELS: tl.constexpr,
    OUT_H: tl.constexpr,
    OUT_W: tl.constexpr,
    ALIGNED: tl.constexpr,
    ROTATED: tl.constexpr,
    LONGEST: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    r = tl.program_id(0)
    p = tl.program_id(1) * BLOCK_P + tl.arange(0, BLOCK_P)
    channel = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    level = _level_of(levels_ptr, r, HAS_LEVELS)
    map_ptr = grads[0]
    height = heights[0]
    width = widths[0]
    scale = scales[0]
    for k in tl.static_range(1, NUM_LEVELS):
        here = level == k
        map_ptr = tl.where(here, grads[k], map_ptr)
        height = tl.where(here, heights[k], height)
        width = tl.where(here, widths[k], width)
        scale = tl.where(here, scales[k], scale)
    there = (level >= 0) & (level < NUM_LEVELS)
    image, y0, x0, start_y, start_x, bin_h, bin_w, rows, columns, cos, sin = _load_region(
        rois_ptr, r, stride_roi, stride_number, scale, there, num_images, sampling_ratio,
        OUT_H, OUT_W, ALIGNED, ROTATED, LONGEST,
    )  # fmt: skip
    in_c = channel < num_channels
    in_p = p < OUT_H * OUT_W
    place = (r.to(tl.int64) * num_channels + channel.to(tl.int64))[None, :] * (OUT_H * OUT_W) + p[:, None]
    share = tl.load(grad_ptr + place, mask=in_p[:, None] & in_c[None, :], other=0.0).to(tl.float32)
    share = share / tl.maximum(rows * columns, 1).to(tl.float32)
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
            inside, top, left, step_down, step_right, low, right = _corners(y, x, height, width)
            mask = (inside & in_p)[:, None] & in_c[None, :]
            cell = base + (top * width + left)[:, None]
            to_right = step_right[:, None]
            to_below = (step_down * width)[:, None]
            tl.atomic_add(cell, ((1.0 - low) * (1.0 - right))[:, None] * share, mask=mask, sem="relaxed")
            tl.atomic_add(cell + to_right, ((1.0 - low) * right)[:, None] * share, mask=mask, sem="relaxed")
            tl.atomic_add(cell + to_below, (low * (1.0 - right))[:, None] * share, mask=mask, sem="relaxed")
            tl.atomic_add(
                cell + to_below + to_right, (low * right)[:, None] * share, mask=mask, sem="relaxed"
            )


@triton.jit
def _hat(position, size, cell):
    """Weight of a cell at a position along one axis of a map; positions up to a cell outside count as on its edge."""
    inside = (position >= -1.0) & (position <= size)
    position = tl.minimum(tl.maximum(position, 0.0), size - 1.0)
    return tl.where(inside, tl.maximum(1.0 - tl.abs(position - cell), 0.0), 0.0)


@triton.jit
def _gather_kernel(
    grads,
    heights,
    widths,
    scales,
    first_tiles,
    rois_ptr,
    order_ptr,
    starts_ptr,
    grad_ptr,
    stride_roi,
    stride_number,
    num_images,
    num_channels,
    sampling_ratio,
    NUM_LEVELS: tl.constexpr,
    OUT_H: tl.constexpr,
    OUT_W: tl.constexpr,
    ALIGNED: tl.constexpr,
    ROTATED: tl.constexpr,
    LONGEST: tl.constexpr,
    TILE_Y: tl.constexpr,
    TILE_X: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    tile = tl.program_id(0)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    level = tile * 0
    map_ptr = grads[0]
    height = heights[0]
    width = widths[0]
    scale = scales[0]
    first_tile = first_tiles[0]
    for k in tl.static_range(1, NUM_LEVELS):
        here = tile >= first_tiles[k]
        level = tl.where(here, k, level)
        map_ptr = tl.where(here, grads[k], map_ptr)
        height = tl.where(here, heights[k], height)
        width = tl.where(here, widths[k], width)
        scale = tl.where(here, scales[k], scale)
        first_tile = tl.where(here, first_tiles[k], first_tile)
    tiles_x = tl.cdiv(width, TILE_X)
    tiles = tl.cdiv(height, TILE_Y) * tiles_x
    image = (tile - first_tile) // tiles
    number = (tile - first_tile) % tiles
    tile_y = (number // tiles_x) * TILE_Y
    tile_x = (number % tiles_x) * TILE_X
    cells = tl.arange(0, TILE_Y * TILE_X)
    cell_y = tile_y + cells // TILE_X
    cell_x = tile_x + cells % TILE_X
    fy = cell_y.to(tl.float32)[:, None]
    fx = cell_x.to(tl.float32)[:, None]
    in_c = channel < num_channels
    total = tl.zeros((TILE_Y * TILE_X, BLOCK_C), tl.float32)

    key = level * num_images + image
    begin = tl.load(starts_ptr + key)
    end = tl.load(starts_ptr + key + 1)
    for i in range(begin, end):
        r = tl.load(order_ptr + i)
        _, y0, x0, start_y, start_x, bin_h, bin_w, rows, columns, cos, sin = _load_region(
            rois_ptr, r, stride_roi, stride_number, scale, r >= 0, num_images, sampling_ratio,
            OUT_H, OUT_W, ALIGNED, ROTATED, LONGEST,
        )  # fmt: skip
        # Does the region come near the tile? Samples lie between its sides, and reach less than a cell further;
        # those that lie just outside the map count on its edge.
        half_h = 0.5 * OUT_H * bin_h
        half_w = 0.5 * OUT_W * bin_w
        if ROTATED:
            center_y = y0
            center_x = x0
            reach_y = tl.abs(half_h * cos) + tl.abs(half_w * sin)
            reach_x = tl.abs(half_h * sin) + tl.abs(half_w * cos)
        else:
            center_y = y0 + half_h
            center_x = x0 + half_w
            reach_y = tl.abs(half_h)
            reach_x = tl.abs(half_w)
        slack = 2.01 + 1e-6 * (tl.abs(center_y) + tl.abs(center_x) + reach_y + reach_x)
        near = (rows > 0) & (columns > 0)
        near = near & (center_y + reach_y + slack >= tile_y) & (center_y - reach_y - slack <= tile_y + TILE_Y)
        near = near & (center_x + reach_x + slack >= tile_x) & (center_x - reach_x - slack <= tile_x + TILE_X)
        if near:
            step_y = tl.div_rn(bin_h, tl.maximum(rows, 1).to(tl.float32))
            step_x = tl.div_rn(bin_w, tl.maximum(columns, 1).to(tl.float32))
            count = tl.maximum(rows * columns, 1).to(tl.float32)
            for first in range(0, OUT_H * OUT_W, BLOCK_P):
                p = first + tl.arange(0, BLOCK_P)
                in_p = p < OUT_H * OUT_W
                bin_y = (start_y + (p // OUT_W).to(tl.float32) * bin_h)[None, :]
                bin_x = (start_x + (p % OUT_W).to(tl.float32) * bin_w)[None, :]
                if ROTATED:
                    weights = tl.zeros((TILE_Y * TILE_X, BLOCK_P), tl.float32)
                    for m in range(rows):
                        down = bin_y + (m + 0.5) * step_y
                        for n in range(columns):
                            across = bin_x + (n + 0.5) * step_x
                            y = down * cos - across * sin + y0
                            x = down * sin + across * cos + x0
                            weights += _hat(y, height, fy) * _hat(x, width, fx)
                else:
                    weights_y = tl.zeros((TILE_Y * TILE_X, BLOCK_P), tl.float32)
                    for m in range(rows):
                        weights_y += _hat(bin_y + (m + 0.5) * step_y, height, fy)
                    weights_x = tl.zeros((TILE_Y * TILE_X, BLOCK_P), tl.float32)
                    for n in range(columns):
                        weights_x += _hat(bin_x + (n + 0.5) * step_x, width, fx)
                    weights = weights_y * weights_x
                weights = weights / count
                place = (r.to(tl.int64) * num_channels + channel.to(tl.int64))[None, :] * (OUT_H * OUT_W)
                shares = tl.load(
                    grad_ptr + place + p[:, None], mask=in_p[:, None] & in_c[None, :], other=0.0
                ).to(tl.float32)
                total += tl.dot(weights, shares, input_precision="ieee")
    in_map = (cell_y < height) & (cell_x < width)
    place = (image.to(tl.int64) * num_channels + channel.to(tl.int64))[None, :] * height * width
    place += (cell_y * width + cell_x)[:, None]
    tl.store(map_ptr + place, total.to(map_ptr.dtype.element_ty), mask=in_map[:, None] & in_c[None, :])


def _block_c(channels: int) -> int:
    return min(triton.next_power_of_2(max(channels, 16)), 256 if triton_interprets() else 32)


def _block_p(num_bins: int) -> int:
    # The interpreter pays for each operation, not for each element: few and large blocks there.
    return min(triton.next_power_of_2(max(num_bins, 16)), 1024 if triton_interprets() else 64)


def forward_regions(
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
    """Pool ``(R, C, h, w)``; maps and rois may have any strides. Computes in float32."""
    num_images, channels = features[0].shape[:2]
    out = features[0].new_empty(rois.shape[0], channels, *output_size)
    if out.numel() == 0:
        return out
    if num_images == 0:
        return out.zero_()
    rois = rois.float()
    num_bins = output_size[0] * output_size[1]
    block_p, block_c = _block_p(num_bins), _block_c(channels)
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
        LONGEST=LONGEST_SIDE,
        BLOCK_P=block_p,
        BLOCK_C=block_c,
        enable_fp_fusion=False,  # a fused product could change the number of samples
    )
    return out


def _by_map(rois: Tensor, levels: Tensor | None, num_images: int, num_levels: int) -> tuple[Tensor, Tensor]:
    """Regions in the order of (level, image), and where each pair's begin; those of none come last."""
    image = rois[:, 0]
    level = torch.zeros_like(image, dtype=torch.int64) if levels is None else levels
    ok = torch.isfinite(image) & (image >= 0) & (image < num_images) & (level >= 0) & (level < num_levels)
    key = torch.where(ok, level * num_images + torch.where(ok, image, 0).long(), num_levels * num_images)
    key, order = key.sort(stable=True)
    places = torch.arange(num_levels * num_images + 1, device=rois.device)
    return order.to(torch.int32), torch.searchsorted(key, places).to(torch.int32)


def backward_regions(
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
    """Gradients of the maps, contiguous and of ``grad``'s dtype, from that of the output."""
    empty = grad.numel() == 0 or shapes[0][0] == 0
    if empty or not deterministic:
        dtype = grad.dtype if empty else torch.float32
        grads = [torch.zeros(list(shape), dtype=dtype, device=grad.device) for shape in shapes]
    else:
        grads = [grad.new_empty(list(shape)) for shape in shapes]
    if empty:
        return grads
    grad, rois = grad.contiguous(), rois.float()
    num_images, channels = shapes[0][:2]
    output_size = (grad.shape[2], grad.shape[3])
    num_bins = output_size[0] * output_size[1]
    heights, widths = tuple(s[2] for s in shapes), tuple(s[3] for s in shapes)
    scales = tuple(float(scale) for scale in spatial_scales)
    block_p, block_c = _block_p(num_bins), _block_c(channels)
    settings = {
        "NUM_LEVELS": len(shapes),
        "OUT_H": output_size[0],
        "OUT_W": output_size[1],
        "ALIGNED": aligned,
        "ROTATED": rotated,
        "LONGEST": LONGEST_SIDE,
        "BLOCK_P": block_p,
        "BLOCK_C": block_c,
        "enable_fp_fusion": False,
    }
    if not deterministic:
        grid = (rois.shape[0], triton.cdiv(num_bins, block_p), triton.cdiv(channels, block_c))
        _scatter_kernel[grid](
            tuple(grads),
            heights,
            widths,
            scales,
            rois,
            rois if levels is None else levels.contiguous(),
            grad,
            rois.stride(0),
            rois.stride(1),
            num_images,
            channels,
            sampling_ratio,
            HAS_LEVELS=levels is not None,
            **settings,
        )
        return [g.to(grad.dtype) for g in grads]
    order, starts = _by_map(rois, levels, num_images, len(shapes))
    side = 32 if triton_interprets() else 8
    first_tiles, num_tiles = [], 0
    for height, width in zip(heights, widths, strict=True):
        first_tiles.append(num_tiles)
        num_tiles += num_images * triton.cdiv(height, side) * triton.cdiv(width, side)
    if num_tiles == 0:
        return grads
    _gather_kernel[(num_tiles, triton.cdiv(channels, block_c))](
        tuple(grads),
        heights,
        widths,
        scales,
        tuple(first_tiles),
        rois,
        order,
        starts,
        grad,
        rois.stride(0),
        rois.stride(1),
        num_images,
        channels,
        sampling_ratio,
        TILE_Y=side,
        TILE_X=side,
        **settings,
    )
    return grads


def launch_forward(
    features: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor | None,
    output_size: tuple[int, int],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """See ``roi_align``."""
    return forward_regions(
        features, rois, levels, output_size, spatial_scales, sampling_ratio, aligned=aligned, rotated=False
    )


def launch_backward(
    grad: Tensor,
    rois: Tensor,
    levels: Tensor | None,
    shapes: Sequence[Sequence[int]],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
    aligned: bool,
    deterministic: bool,
) -> list[Tensor]:
    """Its gradient."""
    return backward_regions(
        grad,
        rois,
        levels,
        shapes,
        spatial_scales,
        sampling_ratio,
        aligned=aligned,
        rotated=False,
        deterministic=deterministic,
    )
