"""Gradient of pooling in a fixed order of sums, which makes it deterministic.

One program per tile of a map adds the contributions of all regions over the tile, in the order of the regions. It
multiplies the matrix of weights between the bins of a region and the cells of the tile with the gradient of the bins, and
needs no memory beyond the order of the regions.
"""

# mypy: ignore-errors
# Triton's language is not Python's.

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from hydet.kernels.dispatch import triton_interprets
from hydet.kernels.region_pooling.triton_regions import load_region

__all__ = ["launch_gather"]


@triton.jit
def _hat(position, size, cell):
    """Return the weight of a cell for a position along one axis of a map.

    Positions up to one cell outside of the map count as on its edge.
    """
    inside = (position >= -1.0) & (position <= size)
    position = tl.minimum(tl.maximum(position, 0.0), size - 1.0)
    return tl.where(inside, tl.maximum(1.0 - tl.abs(position - cell), 0.0), 0.0)


@triton.jit
def _backward_gather_kernel(
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
    stride_field,
    num_images,
    num_channels,
    sampling_ratio,
    NUM_LEVELS: tl.constexpr,
    OUT_H: tl.constexpr,
    OUT_W: tl.constexpr,
    ALIGNED: tl.constexpr,
    ROTATED: tl.constexpr,
    LONGEST_SIDE: tl.constexpr,
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
        is_level = tile >= first_tiles[k]
        level = tl.where(is_level, k, level)
        map_ptr = tl.where(is_level, grads[k], map_ptr)
        height = tl.where(is_level, heights[k], height)
        width = tl.where(is_level, widths[k], width)
        scale = tl.where(is_level, scales[k], scale)
        first_tile = tl.where(is_level, first_tiles[k], first_tile)
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
        _, y0, x0, start_y, start_x, bin_h, bin_w, rows, columns, cos, sin = load_region(
            rois_ptr, r, stride_roi, stride_field, scale, r >= 0, num_images, sampling_ratio,
            OUT_H, OUT_W, ALIGNED, ROTATED, LONGEST_SIDE,
        )  # fmt: skip
        # Skip regions that do not affect the tile. Samples lie inside of the region and reach less than one cell further;
        # samples up to one cell outside of the map count as on its edge. The last term covers rounding.
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
                offset = (r.to(tl.int64) * num_channels + channel.to(tl.int64))[None, :] * (OUT_H * OUT_W)
                bin_grads = tl.load(
                    grad_ptr + offset + p[:, None], mask=in_p[:, None] & in_c[None, :], other=0.0
                ).to(tl.float32)
                total += tl.dot(weights, bin_grads, input_precision="ieee")
    in_map = (cell_y < height) & (cell_x < width)
    offset = (image.to(tl.int64) * num_channels + channel.to(tl.int64))[None, :] * height * width
    offset += (cell_y * width + cell_x)[:, None]
    tl.store(map_ptr + offset, total.to(map_ptr.dtype.element_ty), mask=in_map[:, None] & in_c[None, :])


def _sort_by_map(
    rois: Tensor, levels: Tensor | None, num_images: int, num_levels: int
) -> tuple[Tensor, Tensor]:
    """Sort regions by level and image.

    Returns the ``(R,)`` order, with regions of no map at the end, and the ``(levels * images + 1,)`` position in it at
    which the regions of each map begin.
    """
    image = rois[:, 0]
    level = torch.zeros_like(image, dtype=torch.int64) if levels is None else levels
    valid = torch.isfinite(image) & (image >= 0) & (image < num_images) & (level >= 0) & (level < num_levels)
    key = torch.where(
        valid, level * num_images + torch.where(valid, image, 0).long(), num_levels * num_images
    )
    key, order = key.sort(stable=True)
    maps = torch.arange(num_levels * num_images + 1, device=rois.device)
    return order.to(torch.int32), torch.searchsorted(key, maps).to(torch.int32)


def launch_gather(
    grad: Tensor,
    rois: Tensor,
    levels: Tensor | None,
    shapes: Sequence[Sequence[int]],
    scales: tuple[float, ...],
    sampling_ratio: int,
    settings: dict[str, int],
) -> list[Tensor]:
    """Return the gradients of the maps; see ``triton_backward`` for the settings."""
    grads = [grad.new_empty(list(shape)) for shape in shapes]
    num_images, channels = shapes[0][:2]
    tile_side = 32 if triton_interprets() else 8
    first_tiles, num_tiles = [], 0
    for _, _, height, width in shapes:
        first_tiles.append(num_tiles)
        num_tiles += num_images * triton.cdiv(height, tile_side) * triton.cdiv(width, tile_side)
    if num_tiles == 0:
        return grads
    order, starts = _sort_by_map(rois, levels, num_images, len(shapes))
    _backward_gather_kernel[(num_tiles, triton.cdiv(channels, settings["BLOCK_C"]))](
        tuple(grads),
        tuple(shape[2] for shape in shapes),
        tuple(shape[3] for shape in shapes),
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
        TILE_Y=tile_side,
        TILE_X=tile_side,
        **settings,
    )
    return grads
