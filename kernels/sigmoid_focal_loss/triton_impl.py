"""Focal loss of all pyramid levels in one launch: reads each logit once and writes one sum a program."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from hydet.kernels.dispatch import triton_interprets
from hydet.kernels.sigmoid_focal_loss.reference import weights

__all__ = ["MAX_LEVELS", "launch_sigmoid_focal_loss", "launch_sigmoid_focal_loss_backward"]

MAX_LEVELS = 8


@triton.jit
def _locate(program, level_ptrs, rows, num_images, K: tl.constexpr, BLOCK: tl.constexpr):
    """Level that a program works on: its number, its place there, rows an image, and rows of all levels before it."""
    level = 0
    first_program = 0
    rows_here = rows[0]
    rows_before = 0
    next_program = 0
    next_rows = 0
    for later in tl.static_range(1, len(level_ptrs)):
        next_program += tl.cdiv(num_images.to(tl.int64) * rows[later - 1] * K, BLOCK).to(tl.int32)
        next_rows += rows[later - 1]
        reached = program >= next_program
        level = tl.where(reached, later, level)
        first_program = tl.where(reached, next_program, first_program)
        rows_here = tl.where(reached, rows[later], rows_here)
        rows_before = tl.where(reached, next_rows, rows_before)
    return level, program - first_program, rows_here, rows_before


@triton.jit
def _pointer(level, ptrs):
    pointer = ptrs[0]
    for later in tl.static_range(1, len(ptrs)):
        pointer = tl.where(level == later, ptrs[later], pointer)
    return pointer


@triton.jit
def _signed(
    logits_ptr, targets_ptr, chunk, num_images, rows_per_image, all_rows, first_row, K: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Block ``chunk`` of a level, flat: addresses, mask, z (the logit, negated at the target class), kind of entry."""
    # 64 bits for what is the same in the whole block only: dividing them is slow
    start = chunk.to(tl.int64) * BLOCK
    row_0 = start // K
    image_0 = row_0 // rows_per_image
    local = (start - row_0 * K).to(tl.int32) + tl.arange(0, BLOCK)
    row = local // K
    inside = row < num_images.to(tl.int64) * rows_per_image - row_0
    row_of_image = (row_0 - image_0 * rows_per_image).to(tl.int32) + row
    images_on = row_of_image // rows_per_image
    row_of_image -= images_on * rows_per_image
    its_targets = targets_ptr + (image_0 + images_on) * all_rows + first_row
    target = tl.load(its_targets + row_of_image, mask=inside, other=-1).to(tl.int32)
    entry = start + tl.arange(0, BLOCK)
    x = tl.load(logits_ptr + entry, mask=inside, other=0.0).to(tl.float32)
    is_target = target == local % K
    return entry, inside, tl.where(is_target, -x, x), is_target, target >= 0


@triton.jit
def _softplus_and_sigmoid(z):
    decay = tl.exp(-tl.abs(z))
    # log(1 + decay) would lose the decay below 6e-8; its series is exact there
    softplus = tl.maximum(z, 0.0) + tl.where(decay < 1e-4, decay * (1.0 - 0.5 * decay), tl.log(1.0 + decay))
    smaller = decay / (1.0 + decay)
    return softplus, tl.where(z >= 0, 1.0 - smaller, smaller)


@triton.jit
def _power(sigmoid, z, softplus, GAMMA: tl.constexpr):
    if GAMMA == 2.0:
        return sigmoid * sigmoid
    elif GAMMA == 0.0:
        return sigmoid * 0.0 + 1.0
    else:
        return tl.exp(GAMMA * (z - softplus))  # z - softplus(z) = log(sigmoid(z))


_SIZES = ["num_images", "all_rows", *(f"rows_{level}" for level in range(MAX_LEVELS))]


@triton.jit(do_not_specialize=_SIZES)
def _forward_kernel(
    level_ptrs,
    targets_ptr,
    sums_ptr,
    num_images,
    all_rows,
    rows_0,
    rows_1,
    rows_2,
    rows_3,
    rows_4,
    rows_5,
    rows_6,
    rows_7,
    OF_TARGET: tl.constexpr,
    OF_OTHERS: tl.constexpr,
    GAMMA: tl.constexpr,
    K: tl.constexpr,
    BLOCK: tl.constexpr,
):
    program = tl.program_id(0)
    rows = (rows_0, rows_1, rows_2, rows_3, rows_4, rows_5, rows_6, rows_7)
    level, chunk, rows_here, rows_before = _locate(program, level_ptrs, rows, num_images, K, BLOCK)
    logits_ptr = _pointer(level, level_ptrs)
    _entry, inside, z, is_target, counts = _signed(
        logits_ptr, targets_ptr, chunk, num_images, rows_here, all_rows, rows_before, K, BLOCK
    )
    softplus, sigmoid = _softplus_and_sigmoid(z)
    loss = softplus * _power(sigmoid, z, softplus, GAMMA) * tl.where(is_target, OF_TARGET, OF_OTHERS)
    tl.store(sums_ptr + program, tl.sum(tl.where(inside & counts, loss, 0.0), axis=0))


@triton.jit(do_not_specialize=_SIZES)
def _backward_kernel(
    level_ptrs,
    grad_ptrs,
    targets_ptr,
    upstream_ptr,
    num_images,
    all_rows,
    rows_0,
    rows_1,
    rows_2,
    rows_3,
    rows_4,
    rows_5,
    rows_6,
    rows_7,
    OF_TARGET: tl.constexpr,
    OF_OTHERS: tl.constexpr,
    GAMMA: tl.constexpr,
    K: tl.constexpr,
    BLOCK: tl.constexpr,
):
    program = tl.program_id(0)
    rows = (rows_0, rows_1, rows_2, rows_3, rows_4, rows_5, rows_6, rows_7)
    level, chunk, rows_here, rows_before = _locate(program, level_ptrs, rows, num_images, K, BLOCK)
    logits_ptr = _pointer(level, level_ptrs)
    grad_ptr = _pointer(level, grad_ptrs)
    entry, inside, z, is_target, counts = _signed(
        logits_ptr, targets_ptr, chunk, num_images, rows_here, all_rows, rows_before, K, BLOCK
    )
    softplus, sigmoid = _softplus_and_sigmoid(z)
    rest = tl.exp(-softplus)  # 1 - sigmoid(z), without cancellation
    slope = _power(sigmoid, z, softplus, GAMMA) * (sigmoid + GAMMA * softplus * rest)
    slope = slope * tl.load(upstream_ptr).to(tl.float32) * tl.where(is_target, -OF_TARGET, OF_OTHERS)
    tl.store(grad_ptr + entry, tl.where(counts, slope, 0.0).to(grad_ptr.dtype.element_ty), mask=inside)


def _block() -> int:
    return 16384 if triton_interprets() else 4096


def _num_programs(levels: Sequence[Tensor]) -> int:
    return sum(triton.cdiv(level.numel(), _block()) for level in levels)


def _arguments(levels: Sequence[Tensor], targets: Tensor, alpha: float, gamma: float) -> dict[str, object]:
    of_target, of_others = weights(alpha)
    rows = [level.shape[1] for level in levels] + [0] * (MAX_LEVELS - len(levels))
    return {
        "num_images": levels[0].shape[0],
        "all_rows": targets.shape[1],
        **{f"rows_{level}": count for level, count in enumerate(rows)},
        "OF_TARGET": of_target,
        "OF_OTHERS": of_others,
        "GAMMA": float(gamma),
        "K": levels[0].shape[2],
        "BLOCK": _block(),
        "enable_fp_fusion": True,
        "num_warps": 8,
    }


def launch_sigmoid_focal_loss(
    levels: Sequence[Tensor], targets: Tensor, alpha: float, gamma: float
) -> Tensor:
    """See ``sigmoid_focal_loss``; float32, at most ``MAX_LEVELS`` levels.

    Sums in a fixed order, so equal inputs give equal bits.
    """
    sums = torch.empty(_num_programs(levels), dtype=torch.float32, device=targets.device)
    if sums.shape[0] > 0:
        _forward_kernel[(sums.shape[0],)](
            tuple(level.contiguous() for level in levels),
            targets.contiguous(),
            sums,
            **_arguments(levels, targets, alpha, gamma),
        )
    return sums.sum()


def launch_sigmoid_focal_loss_backward(
    grad: Tensor, levels: Sequence[Tensor], targets: Tensor, alpha: float, gamma: float
) -> list[Tensor]:
    """Gradient with respect to every level, given that of the sum."""
    grads = [torch.empty(level.shape, dtype=level.dtype, device=level.device) for level in levels]
    num_programs = _num_programs(levels)
    if num_programs > 0:
        _backward_kernel[(num_programs,)](
            tuple(level.contiguous() for level in levels),
            tuple(grads),
            targets.contiguous(),
            grad,
            **_arguments(levels, targets, alpha, gamma),
        )
    return grads
