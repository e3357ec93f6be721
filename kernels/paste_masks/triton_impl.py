"""Pasting of masks as a Triton kernel, in one pass over the output."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from hydet.kernels.dispatch import triton_interprets

__all__ = ["launch_forward"]


@triton.jit
def _forward_kernel(
    masks_ptr,
    boxes_ptr,
    out_ptr,
    num_rows,
    num_columns,
    height,
    width,
    tiles_x,
    threshold,
    stride_mask,
    stride_row,
    stride_column,
    stride_box,
    stride_field,
    SOFT: tl.constexpr,
    BLOCK_Y: tl.constexpr,
    BLOCK_X: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64)
    tile = tl.program_id(1)
    h = (tile // tiles_x) * BLOCK_Y + tl.arange(0, BLOCK_Y)
    w = (tile % tiles_x) * BLOCK_X + tl.arange(0, BLOCK_X)
    x1 = tl.load(boxes_ptr + i * stride_box)
    y1 = tl.load(boxes_ptr + i * stride_box + stride_field)
    x2 = tl.load(boxes_ptr + i * stride_box + 2 * stride_field)
    y2 = tl.load(boxes_ptr + i * stride_box + 3 * stride_field)
    box_width = x2 - x1
    box_height = y2 - y1
    limit = float("inf")
    valid = (box_width > 0) & (box_width < limit) & (box_height > 0) & (box_height < limit)
    y = (h + 0.5 - y1) * tl.div_rn(1.0 * num_rows, tl.where(valid, box_height, 1.0)) - 0.5
    x = (w + 0.5 - x1) * tl.div_rn(1.0 * num_columns, tl.where(valid, box_width, 1.0)) - 0.5
    # The mask reaches from position -1 to its size. Clamp to that range before the conversion to integers, which is
    # undefined for large values.
    y = tl.where(valid, y, -2.0)
    in_reach_y = (y > -1.0) & (y < num_rows)
    in_reach_x = (x > -1.0) & (x < num_columns)
    y = tl.where(in_reach_y, y, 0.0)
    x = tl.where(in_reach_x, x, 0.0)
    top = tl.floor(y)
    left = tl.floor(x)
    weight_y = (y - top)[:, None]
    weight_x = (x - left)[None, :]
    top = top.to(tl.int32)
    left = left.to(tl.int32)
    has_top = (in_reach_y & (top >= 0))[:, None]
    has_bottom = (in_reach_y & (top + 1 < num_rows))[:, None]
    has_left = (in_reach_x & (left >= 0))[None, :]
    has_right = (in_reach_x & (left + 1 < num_columns))[None, :]
    start = masks_ptr + i * stride_mask + (top * stride_row)[:, None] + (left * stride_column)[None, :]
    a = tl.load(start, mask=has_top & has_left, other=0.0).to(tl.float32)
    b = tl.load(start + stride_column, mask=has_top & has_right, other=0.0).to(tl.float32)
    c = tl.load(start + stride_row, mask=has_bottom & has_left, other=0.0).to(tl.float32)
    d = tl.load(start + stride_row + stride_column, mask=has_bottom & has_right, other=0.0).to(tl.float32)
    value = (1.0 - weight_y) * ((1.0 - weight_x) * a + weight_x * b) + weight_y * (
        (1.0 - weight_x) * c + weight_x * d
    )
    if SOFT:
        result = (value * 255.0).to(tl.uint8)
    else:
        result = (value >= threshold).to(tl.uint8)
    in_image = (h < height)[:, None] & (w < width)[None, :]
    offset = i * height * width + h.to(tl.int64)[:, None] * width + w[None, :]
    tl.store(out_ptr + offset, result, mask=in_image)


def launch_forward(masks: Tensor, boxes: Tensor, height: int, width: int, threshold: float) -> Tensor:
    """Compute ``paste_masks`` in float32. Masks and boxes may have any strides."""
    if masks.dtype == torch.float64:
        masks = masks.float()
    boxes = boxes.float()
    out = torch.empty(masks.shape[0], height, width, dtype=torch.uint8, device=masks.device)
    if out.numel() == 0:
        return out if threshold < 0 else out.view(torch.bool)
    if masks.numel() == 0:
        return out.zero_() if threshold < 0 else out.fill_(threshold == 0).view(torch.bool)
    block_y, block_x = (64, 512) if triton_interprets() else (16, 128)
    tiles_x = triton.cdiv(width, block_x)
    _forward_kernel[(masks.shape[0], triton.cdiv(height, block_y) * tiles_x)](
        masks,
        boxes,
        out,
        masks.shape[1],
        masks.shape[2],
        height,
        width,
        tiles_x,
        float(threshold),
        masks.stride(0),
        masks.stride(1),
        masks.stride(2),
        boxes.stride(0),
        boxes.stride(1),
        SOFT=threshold < 0,
        BLOCK_Y=block_y,
        BLOCK_X=block_x,
    )
    return out if threshold < 0 else out.view(torch.bool)
