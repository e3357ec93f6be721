"""Pasting as a Triton kernel: one pass over the result, which is all that it writes."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from hydet.kernels.dispatch import triton_interprets

__all__ = ["launch_paste_masks"]


@triton.jit
def _paste_kernel(
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
    stride_number,
    SOFT: tl.constexpr,
    BLOCK_Y: tl.constexpr,
    BLOCK_X: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64)
    tile = tl.program_id(1)
    h = (tile // tiles_x) * BLOCK_Y + tl.arange(0, BLOCK_Y)
    w = (tile % tiles_x) * BLOCK_X + tl.arange(0, BLOCK_X)
    x1 = tl.load(boxes_ptr + i * stride_box)
    y1 = tl.load(boxes_ptr + i * stride_box + stride_number)
    x2 = tl.load(boxes_ptr + i * stride_box + 2 * stride_number)
    y2 = tl.load(boxes_ptr + i * stride_box + 3 * stride_number)
    box_width = x2 - x1
    box_height = y2 - y1
    limit = float("inf")
    drawn = (box_width > 0) & (box_width < limit) & (box_height > 0) & (box_height < limit)
    y = (h + 0.5 - y1) * tl.div_rn(1.0 * num_rows, tl.where(drawn, box_height, 1.0)) - 0.5
    x = (w + 0.5 - x1) * tl.div_rn(1.0 * num_columns, tl.where(drawn, box_width, 1.0)) - 0.5
    # Between -1 and the size the mask is felt; the number is clamped there before it becomes an integer.
    y = tl.where(drawn, y, -2.0)
    near_y = (y > -1.0) & (y < num_rows)
    near_x = (x > -1.0) & (x < num_columns)
    y = tl.where(near_y, y, 0.0)
    x = tl.where(near_x, x, 0.0)
    top = tl.floor(y)
    left = tl.floor(x)
    low = (y - top)[:, None]
    right = (x - left)[None, :]
    top = top.to(tl.int32)
    left = left.to(tl.int32)
    up_there = (near_y & (top >= 0))[:, None]
    low_there = (near_y & (top + 1 < num_rows))[:, None]
    left_there = (near_x & (left >= 0))[None, :]
    right_there = (near_x & (left + 1 < num_columns))[None, :]
    start = masks_ptr + i * stride_mask + (top * stride_row)[:, None] + (left * stride_column)[None, :]
    a = tl.load(start, mask=up_there & left_there, other=0.0).to(tl.float32)
    b = tl.load(start + stride_column, mask=up_there & right_there, other=0.0).to(tl.float32)
    c = tl.load(start + stride_row, mask=low_there & left_there, other=0.0).to(tl.float32)
    d = tl.load(start + stride_row + stride_column, mask=low_there & right_there, other=0.0).to(tl.float32)
    value = (1.0 - low) * ((1.0 - right) * a + right * b) + low * ((1.0 - right) * c + right * d)
    if SOFT:
        result = (value * 255.0).to(tl.uint8)
    else:
        result = (value >= threshold).to(tl.uint8)
    in_image = (h < height)[:, None] & (w < width)[None, :]
    place = i * height * width + h.to(tl.int64)[:, None] * width + w[None, :]
    tl.store(out_ptr + place, result, mask=in_image)


def launch_paste_masks(masks: Tensor, boxes: Tensor, height: int, width: int, threshold: float) -> Tensor:
    """See ``paste_masks``; masks and boxes may have any strides."""
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
    _paste_kernel[(masks.shape[0], triton.cdiv(height, block_y) * tiles_x)](
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
