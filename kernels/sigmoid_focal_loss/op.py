"""The op ``hydet::sigmoid_focal_loss``: argument checks, dispatch, fake kernels and gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from hydet.kernels.autograd import AutogradContext
from hydet.kernels.dispatch import Preference
from hydet.kernels.sigmoid_focal_loss.torch_impl import backward_torch, forward_torch

__all__ = ["PREFERENCE", "sigmoid_focal_loss"]

# torchvision's loss needs one-hot targets and temporaries of the size of the logits, so no order lists it.
PREFERENCE = Preference("sigmoid_focal_loss", cpu=("torch",), cuda=("triton", "torch"))


def _uses_triton(levels: Sequence[Tensor]) -> bool:
    # The kernel computes in float32, but gradient checks need float64. It takes up to 8 levels; pyramids have 5.
    fits = levels[0].dtype != torch.float64 and len(levels) <= 8
    return PREFERENCE.choose(levels[0].device) == "triton" and fits


@torch.library.custom_op("hydet::sigmoid_focal_loss", mutates_args=())
def _sigmoid_focal_loss(levels: Sequence[Tensor], targets: Tensor, alpha: float, gamma: float) -> Tensor:
    if _uses_triton(levels):
        from hydet.kernels.sigmoid_focal_loss.triton_impl import launch_forward

        return launch_forward(levels, targets, alpha, gamma)
    return forward_torch(levels, targets, alpha, gamma)


@_sigmoid_focal_loss.register_fake
def _(levels: Sequence[Tensor], targets: Tensor, alpha: float, gamma: float) -> Tensor:
    return levels[0].new_empty((), dtype=torch.promote_types(levels[0].dtype, torch.float32))


@torch.library.custom_op("hydet::sigmoid_focal_loss_backward", mutates_args=())
def _sigmoid_focal_loss_backward(
    grad: Tensor, levels: Sequence[Tensor], targets: Tensor, alpha: float, gamma: float
) -> list[Tensor]:
    if _uses_triton(levels):
        from hydet.kernels.sigmoid_focal_loss.triton_impl import launch_backward

        return launch_backward(grad, levels, targets, alpha, gamma)
    return backward_torch(grad, levels, targets, alpha, gamma)


@_sigmoid_focal_loss_backward.register_fake
def _(grad: Tensor, levels: Sequence[Tensor], targets: Tensor, alpha: float, gamma: float) -> list[Tensor]:
    return [level.new_empty(level.shape) for level in levels]


class _Context(AutogradContext, Protocol):
    alpha: float
    gamma: float


def _setup_context(
    ctx: _Context, inputs: tuple[Sequence[Tensor], Tensor, float, float], output: Tensor
) -> None:
    levels, targets, ctx.alpha, ctx.gamma = inputs
    ctx.save_for_backward(targets, *levels)


def _backward(ctx: _Context, grad: Tensor) -> tuple[list[Tensor], None, None, None]:
    targets, *levels = ctx.saved_tensors
    return _sigmoid_focal_loss_backward(grad, levels, targets, ctx.alpha, ctx.gamma), None, None, None


_sigmoid_focal_loss.register_autograd(_backward, setup_context=_setup_context)


def sigmoid_focal_loss(
    logits: Tensor | Sequence[Tensor], targets: Tensor, *, alpha: float = -1, gamma: float = 2
) -> Tensor:
    """Sum the focal loss over all entries of all levels, from integer classes.

    The forward pass allocates no tensor of the size of the logits; the backward pass allocates their gradient only.

    Args:
        logits: ``(B, R_l, K)`` per pyramid level, or one ``(R, K)`` tensor; any floating point dtype.
        targets: ``(B, R)`` integers, R the sum of R_l, in the order of the levels; ``(R,)`` for one tensor. 0 to K - 1
            are classes, K is background, and rows with a negative target are ignored.
        alpha: weight of the target class; other classes have the weight 1 - alpha. Negative for no weights.
        gamma: exponent of the modulating factor, which reduces the loss of easy entries; not negative.

    Returns:
        A scalar, float32 (float64 for float64 logits), once differentiable with respect to the logits.

    Raises:
        ValueError: if the shapes do not match, there is no level, or ``gamma`` is negative.
        TypeError: if logits are integers, or targets are floating point.

    Source: Lin et al. 2017 (arXiv:1708.02002), section 3.
    """
    levels = [logits[None]] if isinstance(logits, Tensor) else list(logits)
    if isinstance(logits, Tensor):
        targets = targets[None]
    if not levels:
        raise ValueError("sigmoid_focal_loss needs at least one level of logits, got none")
    if gamma < 0:
        raise ValueError(f"gamma must not be negative, got {gamma}")
    if targets.is_floating_point():
        raise TypeError(f"targets must be integers, got {targets.dtype}")
    for level in levels:
        if level.ndim != 3 or level.shape[0] != levels[0].shape[0] or level.shape[2] != levels[0].shape[2]:
            raise ValueError(
                f"each level must be (B, R_l, K) with the same B and K, got {[tuple(x.shape) for x in levels]}"
            )
        if not level.is_floating_point() or level.dtype != levels[0].dtype:
            raise TypeError(f"logits must have one floating point dtype, got {[x.dtype for x in levels]}")
    num_rows = sum(level.shape[1] for level in levels)
    if targets.shape != (levels[0].shape[0], num_rows):
        raise ValueError(
            f"targets must be {(levels[0].shape[0], num_rows)}, one per row of logits, got {tuple(targets.shape)}"
        )
    loss: Tensor = _sigmoid_focal_loss(levels, targets, float(alpha), float(gamma))
    return loss
