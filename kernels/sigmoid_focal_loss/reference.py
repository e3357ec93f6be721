"""Focal loss of integer classes in plain torch, a few rows at a time, its gradient in closed form.

With z = x for a class that is not the target and z = -x for the one that is, both loss terms are
weight * softplus(z) * sigmoid(z) ** gamma: stable, and without one-hot targets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["sigmoid_focal_loss_backward_reference", "sigmoid_focal_loss_reference"]

# Temporaries of so many numbers stay in the cache of one core.
NUMBERS_PER_CHUNK = 1 << 16


def weights(alpha: float) -> tuple[float, float]:
    """Weight of the target class and of the others; a negative alpha weighs both alike."""
    return (alpha, 1 - alpha) if alpha >= 0 else (1.0, 1.0)


def _focus(z: Tensor, gamma: float) -> Tensor:
    probability = z.sigmoid()
    return probability.square_() if gamma == 2 else probability.pow_(gamma)


def _loss(z: Tensor, gamma: float) -> Tensor:
    return F.softplus(z).mul_(_focus(z, gamma))


def _slope(z: Tensor, gamma: float) -> Tensor:
    """Derivative of ``_loss``: sigmoid^(gamma + 1) + gamma softplus sigmoid^gamma (1 - sigmoid)."""
    probability = z.sigmoid()
    rest = (-z).sigmoid_().mul_(F.softplus(z)).mul_(gamma)
    return rest.add_(probability).mul_(_focus(z, gamma))


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _terms(
    x: Tensor, targets: Tensor, alpha: float, gamma: float, term: Callable[[Tensor, float], Tensor], sign: int
) -> Tensor:
    """One term an entry of ``(N, K)``, those of the target class with ``-x`` and multiplied by ``sign``."""
    of_target, of_others = weights(alpha)
    terms = term(x, gamma)
    if of_others != 1:
        terms *= of_others
    rows = ((targets >= 0) & (targets < x.shape[1])).nonzero().squeeze(1)
    classes = targets[rows]
    terms[rows, classes] = term(-x[rows, classes], gamma) * (sign * of_target)
    return terms.masked_fill_((targets < 0)[:, None], 0)


def _chunks(levels: Sequence[Tensor], targets: Tensor) -> list[list[tuple[Tensor, Tensor]]]:
    """Rows ``(n, K)`` with their targets ``(n,)``, level by level and image by image."""
    parts, first = [], 0
    for level in levels:
        size = max(1, NUMBERS_PER_CHUNK // max(1, level.shape[2]))
        its_targets = targets[:, first : first + level.shape[1]]
        parts.append(
            [
                pair
                for x, t in zip(level.unbind(0), its_targets.unbind(0))
                for pair in zip(x.split(size), t.split(size))
            ]
        )
        first += level.shape[1]
    return parts


def sigmoid_focal_loss_reference(
    levels: Sequence[Tensor], targets: Tensor, alpha: float, gamma: float
) -> Tensor:
    """See ``sigmoid_focal_loss``; every level ``(B, R_l, K)``, targets ``(B, R)``."""
    sums = [
        _terms(_wide(x), t, alpha, gamma, _loss, 1).sum()
        for chunks in _chunks(levels, targets)
        for x, t in chunks
    ]
    zero = _wide(levels[0].new_zeros(()))
    return torch.stack(sums).sum() if sums else zero


def sigmoid_focal_loss_backward_reference(
    grad: Tensor, levels: Sequence[Tensor], targets: Tensor, alpha: float, gamma: float
) -> list[Tensor]:
    """Gradient with respect to every level, given that of the sum."""
    grads = []
    for level, chunks in zip(levels, _chunks(levels, targets)):
        parts = [_terms(_wide(x), t, alpha, gamma, _slope, -1).mul_(grad).to(level.dtype) for x, t in chunks]
        grads.append(torch.cat(parts).view(level.shape) if parts else torch.zeros_like(level))
    return grads
