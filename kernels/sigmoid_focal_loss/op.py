"""The registered op: checks, dispatch, shapes, gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hydet.kernels.dispatch import choose
from hydet.kernels.sigmoid_focal_loss.reference import (
    sigmoid_focal_loss_backward_reference,
    sigmoid_focal_loss_reference,
)

__all__ = ["sigmoid_focal_loss"]


def _runs_triton(levels: Sequence[Tensor]) -> bool:
    # float64 is for checking gradients, and the kernel would round it; it takes 8 levels, pyramids have 5
    fits = levels[0].dtype != torch.float64 and len(levels) <= 8
    return choose("sigmoid_focal_loss", levels[0].device) == "triton" and fits


@torch.library.custom_op("hydet::sigmoid_focal_loss", mutates_args=())
def _sigmoid_focal_loss(levels: Sequence[Tensor], targets: Tensor, alpha: float, gamma: float) -> Tensor:
    if _runs_triton(levels):
        from hydet.kernels.sigmoid_focal_loss.triton_impl import launch_sigmoid_focal_loss

        return launch_sigmoid_focal_loss(levels, targets, alpha, gamma)
    return sigmoid_focal_loss_reference(levels, targets, alpha, gamma)


@_sigmoid_focal_loss.register_fake
def _(levels: Sequence[Tensor], targets: Tensor, alpha: float, gamma: float) -> Tensor:
    return levels[0].new_empty((), dtype=torch.promote_types(levels[0].dtype, torch.float32))


@torch.library.custom_op("hydet::sigmoid_focal_loss_backward", mutates_args=())
def _sigmoid_focal_loss_backward(
    grad: Tensor, levels: Sequence[Tensor], targets: Tensor, alpha: float, gamma: float
) -> list[Tensor]:
    if _runs_triton(levels):
        from hydet.kernels.sigmoid_focal_loss.triton_impl import launch_sigmoid_focal_loss_backward

        return launch_sigmoid_focal_loss_backward(grad, levels, targets, alpha, gamma)
    return sigmoid_focal_loss_backward_reference(grad, levels, targets, alpha, gamma)


@_sigmoid_focal_loss_backward.register_fake
def _(grad: Tensor, levels: Sequence[Tensor], targets: Tensor, alpha: float, gamma: float) -> list[Tensor]:
    return [level.new_empty(level.shape) for level in levels]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    levels, targets, ctx.alpha, ctx.gamma = inputs
    ctx.save_for_backward(targets, *levels)


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    targets, *levels = ctx.saved_tensors
    return _sigmoid_focal_loss_backward(grad, levels, targets, ctx.alpha, ctx.gamma), None, None, None


_sigmoid_focal_loss.register_autograd(_backward, setup_context=_setup_context)


def sigmoid_focal_loss(
    logits: Tensor | Sequence[Tensor], targets: Tensor, *, alpha: float = -1, gamma: float = 2
) -> Tensor:
    """Sum of the focal loss over all entries of all levels, from integer classes.

    Nothing of the size of the logits is made in the forward pass; the backward pass makes their gradient only.

    Args:
        logits: ``(B, R_l, K)`` for each pyramid level, or one ``(R, K)`` tensor; any floating point type.
        targets: ``(B, R)`` integers with R the sum of R_l, levels in order; or ``(R,)`` for one tensor. 0 to K - 1
            is a class, K background, and a row with a negative target counts nothing.
        alpha: weight of the target class, 1 - alpha of the others; negative for no weights.
        gamma: how much easy entries count less; not negative.

    Returns:
        A scalar, float32 (float64 for float64 logits), differentiable once with respect to the logits.

    Raises:
        ValueError: if shapes do not fit, there is no level, or ``gamma`` is negative.
        TypeError: for integer logits or floating point targets.

    Source: Lin et al. 2017 (arXiv:1708.02002), section 3.
    """
    levels = [logits[None]] if isinstance(logits, Tensor) else list(logits)
    if isinstance(logits, Tensor):
        targets = targets[None]
    if not levels:
        raise ValueError("sigmoid_focal_loss takes at least one level of logits, got none")
    if gamma < 0:
        raise ValueError(f"gamma must not be negative, got {gamma}")
    if targets.is_floating_point():
        raise TypeError(f"targets must be integers, got {targets.dtype}")
    for level in levels:
        if level.ndim != 3 or level.shape[0] != levels[0].shape[0] or level.shape[2] != levels[0].shape[2]:
            raise ValueError(
                f"each level must be (B, R_l, K) with one B and K, got {[tuple(x.shape) for x in levels]}"
            )
        if not level.is_floating_point() or level.dtype != levels[0].dtype:
            raise TypeError(f"logits must be of one floating point type, got {[x.dtype for x in levels]}")
    rows = sum(level.shape[1] for level in levels)
    if targets.shape != (levels[0].shape[0], rows):
        raise ValueError(
            f"targets must be {(levels[0].shape[0], rows)}, one a row of logits, got {tuple(targets.shape)}"
        )
    return _sigmoid_focal_loss(levels, targets, float(alpha), float(gamma))
