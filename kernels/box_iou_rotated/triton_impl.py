"""IoU of rotated boxes as a Triton kernel; ``overlap.py`` explains the method."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from hydet.kernels.dispatch import triton_interprets

__all__ = ["launch_forward", "load_rotated", "rotated_iou"]


@triton.jit
def _edge_term(x0, y0, x1, y1, p, q):
    """Return the integral of G dx along one edge, in the frame of the box |x| <= p, |y| <= q."""
    start_x = tl.minimum(tl.maximum(x0, -p), p)
    end_x = tl.minimum(tl.maximum(x1, -p), p)
    edge_x = x1 - x0
    edge_y = y1 - y0
    step = 1.0 / tl.where(edge_x == 0, 1e-30, edge_x)
    start_y = y0 + edge_y * tl.minimum(tl.maximum((start_x - x0) * step, 0.0), 1.0)
    end_y = y0 + edge_y * tl.minimum(tl.maximum((end_x - x0) * step, 0.0), 1.0)
    low = tl.minimum(start_y, end_y)
    high = tl.maximum(start_y, end_y)
    low_in = tl.minimum(tl.maximum(low, -q), q)
    high_in = tl.minimum(tl.maximum(high, -q), q)
    span = high_in - low_in
    fraction = (high - high_in + 0.5 * span) / tl.maximum(high - low, 1e-30)
    fraction = tl.minimum(tl.maximum(fraction, 0.0), 1.0)
    return (end_x - start_x) * (low_in + span * fraction + q)


@triton.jit
def rotated_iou(ax, ay, aw, ah, a_cos, a_sin, a_valid, bx, by, bw, bh, b_cos, b_sin, b_valid):
    """Return the IoU of boxes A and B, which broadcast: centers, half sides, cosines, sines and validity."""
    # Measure lengths in units of the longest half side, so that tiny and huge boxes stay in the range of float32.
    unit = 1.0 / tl.maximum(tl.maximum(aw, ah), tl.maximum(bw, bh))
    aw = aw * unit
    ah = ah * unit
    p = bw * unit
    q = bh * unit
    # Boxes more than 3 units apart cannot meet: clamping keeps the values finite and changes no result.
    offset_x = tl.minimum(tl.maximum((ax - bx) * unit, -8.0), 8.0)
    offset_y = tl.minimum(tl.maximum((ay - by) * unit, -8.0), 8.0)
    x = offset_x * b_cos - offset_y * b_sin
    y = offset_x * b_sin + offset_y * b_cos
    cos = a_cos * b_cos + a_sin * b_sin
    sin = a_sin * b_cos - a_cos * b_sin
    ux = aw * cos
    uy = -aw * sin
    vx = ah * sin
    vy = ah * cos
    intersection = _edge_term(x - ux - vx, y - uy - vy, x + ux - vx, y + uy - vy, p, q)
    intersection += _edge_term(x + ux - vx, y + uy - vy, x + ux + vx, y + uy + vy, p, q)
    intersection += _edge_term(x + ux + vx, y + uy + vy, x - ux + vx, y - uy + vy, p, q)
    intersection += _edge_term(x - ux + vx, y - uy + vy, x - ux - vx, y - uy - vy, p, q)
    area_a = 4.0 * aw * ah
    area_b = 4.0 * p * q
    # The edges of A run against the orientation of Green's theorem, hence the sign. A value below the rounding error of
    # the sum becomes 0.
    intersection = tl.where(-intersection > 1e-6 * area_b, -intersection, 0.0)
    intersection = tl.minimum(intersection, tl.minimum(area_a, area_b))
    iou = intersection / (area_a + area_b - intersection)
    return tl.where(a_valid & b_valid & (iou >= 0), iou, 0.0)


@triton.jit
def load_rotated(boxes_ptr, index, stride_box, stride_field, mask):
    """Load a block of boxes as centers, half sides, cosines, sines and validity (finite, with a positive area)."""
    start = boxes_ptr + index * stride_box
    cx = tl.load(start, mask=mask, other=0.0)
    cy = tl.load(start + stride_field, mask=mask, other=0.0)
    width = tl.load(start + 2 * stride_field, mask=mask, other=0.0)
    height = tl.load(start + 3 * stride_field, mask=mask, other=0.0)
    angle = tl.load(start + 4 * stride_field, mask=mask, other=0.0)
    limit = float("inf")
    valid = (tl.abs(cx) < limit) & (tl.abs(cy) < limit) & (tl.abs(angle) < limit)
    valid = valid & (width > 0) & (width < limit) & (height > 0) & (height < limit)
    width = tl.where(valid, width, 1.0)
    height = tl.where(valid, height, 1.0)
    # Subtract whole turns first: fma rounds once, and sin and cos are accurate and cheap for small angles.
    turns = tl.floor(angle * (1.0 / 360.0) + 0.5)
    radians = tl.fma(turns, -360.0, angle) * 0.017453292519943295
    radians = tl.where(valid, radians, 0.0)
    cx = tl.where(valid, cx, 0.0)
    cy = tl.where(valid, cy, 0.0)
    return cx, cy, 0.5 * width, 0.5 * height, tl.cos(radians), tl.sin(radians), valid


@triton.jit
def _forward_kernel(
    a_ptr,
    b_ptr,
    out_ptr,
    num_a,
    num_b,
    stride_a,
    stride_a_field,
    stride_b,
    stride_b_field,
    BLOCK_A: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64) * BLOCK_A + tl.arange(0, BLOCK_A)
    j = tl.program_id(1).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)
    ax, ay, aw, ah, a_cos, a_sin, a_valid = load_rotated(a_ptr, i, stride_a, stride_a_field, i < num_a)
    bx, by, bw, bh, b_cos, b_sin, b_valid = load_rotated(b_ptr, j, stride_b, stride_b_field, j < num_b)
    iou = rotated_iou(
        ax[:, None],
        ay[:, None],
        aw[:, None],
        ah[:, None],
        a_cos[:, None],
        a_sin[:, None],
        a_valid[:, None],
        bx[None, :],
        by[None, :],
        bw[None, :],
        bh[None, :],
        b_cos[None, :],
        b_sin[None, :],
        b_valid[None, :],
    )
    in_matrix = (i < num_a)[:, None] & (j < num_b)[None, :]
    tl.store(out_ptr + i[:, None] * num_b + j[None, :], iou, mask=in_matrix)


def launch_forward(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Compute ``box_iou_rotated`` in float32. Boxes may have any strides."""
    boxes1, boxes2 = boxes1.float(), boxes2.float()
    num_a, num_b = boxes1.shape[0], boxes2.shape[0]
    out = torch.empty(num_a, num_b, dtype=torch.float32, device=boxes1.device)
    if out.numel() == 0:
        return out
    # The interpreter pays per operation, not per element, so it gets few and large blocks.
    block_a, block_b = (128, 128) if triton_interprets() else (16, 32)
    grid = (triton.cdiv(num_a, block_a), triton.cdiv(num_b, block_b))
    _forward_kernel[grid](
        boxes1,
        boxes2,
        out,
        num_a,
        num_b,
        boxes1.stride(0),
        boxes1.stride(1),
        boxes2.stride(0),
        boxes2.stride(1),
        BLOCK_A=block_a,
        BLOCK_B=block_b,
        enable_fp_fusion=True,
    )
    return out
