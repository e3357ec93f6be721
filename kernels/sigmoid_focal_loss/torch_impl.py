"""Focal loss of integer classes in PyTorch, a few rows at a time, with its gradient in closed form.

Let z = x for classes other than the target, and z = -x for the target class of logit x. Both terms of the loss are then
weight * softplus(z) * sigmoid(z) ** gamma, which is numerically stable and needs no one-hot targets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["backward_torch", "class_weights", "forward_torch"]

ENTRIES_PER_CHUNK = 1 << 16  # temporaries of this size stay in the cache of one core


def class_weights(alpha: float) -> tuple[float, float]:
    """Return the weights of the target class and of other classes; 1 and 1 if ``alpha`` is negative."""
    return (alpha, 1 - alpha) if alpha >= 0 else (1.0, 1.0)


def _modulating_factor(z: Tensor, gamma: float) -> Tensor:
    probability = z.sigmoid()
    return probability.square_() if gamma == 2 else probability.pow_(gamma)


def _loss(z: Tensor, gamma: float) -> Tensor:
    """Return softplus(z) * sigmoid(z) ** gamma."""
    return F.softplus(z).mul_(_modulating_factor(z, gamma))


def _loss_derivative(z: Tensor, gamma: float) -> Tensor:
    """Return the derivative of ``_loss``: sigmoid ** gamma * (sigmoid + gamma * softplus * (1 - sigmoid))."""
    probability = z.sigmoid()
    second_term = (-z).sigmoid_().mul_(F.softplus(z)).mul_(gamma)
    return second_term.add_(probability).mul_(_modulating_factor(z, gamma))


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _entry_terms(
    x: Tensor,
    targets: Tensor,
    alpha: float,
    gamma: float,
    term: Callable[[Tensor, float], Tensor],
    target_sign: int,
) -> Tensor:
    """Return the weighted ``term`` of each entry, 0 in ignored rows.

    Args:
        x: ``(n, K)`` logits.
        targets: ``(n,)`` classes.
        alpha: weight of the target class.
        gamma: exponent of the modulating factor.
        term: function of z and ``gamma``, the loss or its derivative.
        target_sign: factor for entries of the target class: 1 for the loss, -1 for the derivative, because z = -x.
    """
    target_weight, other_weight = class_weights(alpha)
    terms = term(x, gamma)
    if other_weight != 1:
        terms *= other_weight
    rows = ((targets >= 0) & (targets < x.shape[1])).nonzero().squeeze(1)
    classes = targets[rows]
    terms[rows, classes] = term(-x[rows, classes], gamma) * (target_sign * target_weight)
    return terms.masked_fill_((targets < 0)[:, None], 0)


def _chunks_per_level(levels: Sequence[Tensor], targets: Tensor) -> list[list[tuple[Tensor, Tensor]]]:
    """Split each level into chunks of ``(n, K)`` logits and ``(n,)`` targets, image by image."""
    chunks_per_level, first = [], 0
    for level in levels:
        rows_per_chunk = max(1, ENTRIES_PER_CHUNK // max(1, level.shape[2]))
        level_targets = targets[:, first : first + level.shape[1]]
        chunks_per_level.append(
            [
                chunk
                for image_logits, image_targets in zip(level.unbind(0), level_targets.unbind(0), strict=True)
                for chunk in zip(
                    image_logits.split(rows_per_chunk), image_targets.split(rows_per_chunk), strict=True
                )
            ]
        )
        first += level.shape[1]
    return chunks_per_level


def forward_torch(levels: Sequence[Tensor], targets: Tensor, alpha: float, gamma: float) -> Tensor:
    """Compute ``sigmoid_focal_loss`` of ``(B, R_l, K)`` levels and ``(B, R)`` targets."""
    sums = [
        _entry_terms(_at_least_float32(x), t, alpha, gamma, _loss, 1).sum()
        for chunks in _chunks_per_level(levels, targets)
        for x, t in chunks
    ]
    return torch.stack(sums).sum() if sums else _at_least_float32(levels[0].new_zeros(()))


def backward_torch(
    grad: Tensor, levels: Sequence[Tensor], targets: Tensor, alpha: float, gamma: float
) -> list[Tensor]:
    """Return the gradient of each level, given the scalar gradient of the sum."""
    grads = []
    for level, chunks in zip(levels, _chunks_per_level(levels, targets), strict=True):
        parts = [
            _entry_terms(_at_least_float32(x), t, alpha, gamma, _loss_derivative, -1)
            .mul_(grad)
            .to(level.dtype)
            for x, t in chunks
        ]
        grads.append(torch.cat(parts).view(level.shape) if parts else torch.zeros_like(level))
    return grads
