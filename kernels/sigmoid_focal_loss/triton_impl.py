"""Focal loss of all pyramid levels in one launch: each logit is read once, and each program writes one sum."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from hydet.kernels.dispatch import triton_interprets
from hydet.kernels.sigmoid_focal_loss.torch_impl import class_weights

__all__ = ["MAX_LEVELS", "launch_backward", "launch_forward"]

MAX_LEVELS = 8


@triton.jit
def _locate(program, level_ptrs, rows, num_images, K: tl.constexpr, BLOCK: tl.constexpr):
    """Return the level of a program, its block there, and the rows per image of that level and of all earlier ones."""
    level = 0
    first_program = 0
    level_rows = rows[0]
    rows_before = 0
    next_program = 0
    next_rows = 0
    for later in tl.static_range(1, len(level_ptrs)):
        next_program += tl.cdiv(num_images.to(tl.int64) * rows[later - 1] * K, BLOCK).to(tl.int32)
        next_rows += rows[later - 1]
        reached = program >= next_program
        level = tl.where(reached, later, level)
        first_program = tl.where(reached, next_program, first_program)
        level_rows = tl.where(reached, rows[later], level_rows)
        rows_before = tl.where(reached, next_rows, rows_before)
    return level, program - first_program, level_rows, rows_before


@triton.jit
def _select_pointer(level, ptrs):
    pointer = ptrs[0]
    for later in tl.static_range(1, len(ptrs)):
        pointer = tl.where(level == later, ptrs[later], pointer)
    return pointer


@triton.jit
def _load_block(
    logits_ptr, targets_ptr, chunk, num_images, rows_per_image, all_rows, first_row, K: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Load block ``chunk`` of a flattened level.

    Returns the offsets, the mask, z (the logit, negated for the target class), whether each entry belongs to the target
    class, and whether it counts.
    """
    # Use 64 bits only for values that the whole block shares, because 64-bit division is slow.
    start = chunk.to(tl.int64) * BLOCK
    row_0 = start // K
    image_0 = row_0 // rows_per_image
    local = (start - row_0 * K).to(tl.int32) + tl.arange(0, BLOCK)
    row = local // K
    in_level = row < num_images.to(tl.int64) * rows_per_image - row_0
    row_of_image = (row_0 - image_0 * rows_per_image).to(tl.int32) + row
    images_on = row_of_image // rows_per_image
    row_of_image -= images_on * rows_per_image
    row_targets_ptr = targets_ptr + (image_0 + images_on) * all_rows + first_row
    target = tl.load(row_targets_ptr + row_of_image, mask=in_level, other=-1).to(tl.int32)
    entry = start + tl.arange(0, BLOCK)
    x = tl.load(logits_ptr + entry, mask=in_level, other=0.0).to(tl.float32)
    is_target = target == local % K
    return entry, in_level, tl.where(is_target, -x, x), is_target, target >= 0


@triton.jit
def _softplus_and_sigmoid(z):
    decay = tl.exp(-tl.abs(z))
    # log(1 + decay) rounds to 0 for a decay below 6e-8. The series is exact there.
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
    TARGET_WEIGHT: tl.constexpr,
    OTHER_WEIGHT: tl.constexpr,
    GAMMA: tl.constexpr,
    K: tl.constexpr,
    BLOCK: tl.constexpr,
):
    program = tl.program_id(0)
    rows = (rows_0, rows_1, rows_2, rows_3, rows_4, rows_5, rows_6, rows_7)
    level, chunk, level_rows, rows_before = _locate(program, level_ptrs, rows, num_images, K, BLOCK)
    logits_ptr = _select_pointer(level, level_ptrs)
    _entry, in_level, z, is_target, counts = _load_block(
        logits_ptr, targets_ptr, chunk, num_images, level_rows, all_rows, rows_before, K, BLOCK
    )
    softplus, sigmoid = _softplus_and_sigmoid(z)
    loss = softplus * _power(sigmoid, z, softplus, GAMMA) * tl.where(is_target, TARGET_WEIGHT, OTHER_WEIGHT)
    tl.store(sums_ptr + program, tl.sum(tl.where(in_level & counts, loss, 0.0), axis=0))


@triton.jit(do_not_specialize=_SIZES)
def _backward_kernel(
    level_ptrs,
    grad_ptrs,
    targets_ptr,
    grad_sum_ptr,
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
    TARGET_WEIGHT: tl.constexpr,
    OTHER_WEIGHT: tl.constexpr,
    GAMMA: tl.constexpr,
    K: tl.constexpr,
    BLOCK: tl.constexpr,
):
    program = tl.program_id(0)
    rows = (rows_0, rows_1, rows_2, rows_3, rows_4, rows_5, rows_6, rows_7)
    level, chunk, level_rows, rows_before = _locate(program, level_ptrs, rows, num_images, K, BLOCK)
    logits_ptr = _select_pointer(level, level_ptrs)
    grad_ptr = _select_pointer(level, grad_ptrs)
    entry, in_level, z, is_target, counts = _load_block(
        logits_ptr, targets_ptr, chunk, num_images, level_rows, all_rows, rows_before, K, BLOCK
    )
    softplus, sigmoid = _softplus_and_sigmoid(z)
    complement = tl.exp(-softplus)  # 1 - sigmoid(z) without cancellation
    slope = _power(sigmoid, z, softplus, GAMMA) * (sigmoid + GAMMA * softplus * complement)
    slope = slope * tl.load(grad_sum_ptr).to(tl.float32) * tl.where(is_target, -TARGET_WEIGHT, OTHER_WEIGHT)
    tl.store(grad_ptr + entry, tl.where(counts, slope, 0.0).to(grad_ptr.dtype.element_ty), mask=in_level)


def _block_size() -> int:
    return 16384 if triton_interprets() else 4096


def _num_programs(levels: Sequence[Tensor]) -> int:
    return sum(triton.cdiv(level.numel(), _block_size()) for level in levels)


def _arguments(levels: Sequence[Tensor], targets: Tensor, alpha: float, gamma: float) -> dict[str, object]:
    target_weight, other_weight = class_weights(alpha)
    rows = [level.shape[1] for level in levels] + [0] * (MAX_LEVELS - len(levels))
    return {
        "num_images": levels[0].shape[0],
        "all_rows": targets.shape[1],
        **{f"rows_{level}": count for level, count in enumerate(rows)},
        "TARGET_WEIGHT": target_weight,
        "OTHER_WEIGHT": other_weight,
        "GAMMA": float(gamma),
        "K": levels[0].shape[2],
        "BLOCK": _block_size(),
        "enable_fp_fusion": True,
        "num_warps": 8,
    }


def launch_forward(levels: Sequence[Tensor], targets: Tensor, alpha: float, gamma: float) -> Tensor:
    """Compute ``sigmoid_focal_loss`` in float32, for at most ``MAX_LEVELS`` levels.

    The order of the sum is fixed, so equal inputs give equal bits.
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


def launch_backward(
    grad: Tensor, levels: Sequence[Tensor], targets: Tensor, alpha: float, gamma: float
) -> list[Tensor]:
    """Return the gradient of each level, given the scalar gradient of the sum."""
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
