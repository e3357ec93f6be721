"""The transforms of Winograd's F(4, 3): four outputs of a filter with three taps from six products.

A one-dimensional filter is a product of polynomials, and products of values at six points determine it. With the points
0, +-sqrt(1/2), +-sqrt(2) and infinity, its rounding errors are about twice those of a plain sum; the more usual points 0,
+-1, +-2 and infinity double them again. Two dimensions apply each transform along both axes.

Source: Lavin and Gray 2016 (arXiv:1509.09308); choice of points: Barabasz et al. 2020 (arXiv:1803.10986).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = [
    "OUTPUTS",
    "POINTS",
    "TAPS",
    "transform_gradient",
    "transform_input",
    "transform_output",
    "transform_taps",
    "untransform_taps",
]

OUTPUTS = 4  # per tile and axis
TAPS = 3
POINTS = OUTPUTS + TAPS - 1

_A, _B = 0.5**0.5, 2.0**0.5  # the points are 0, _A, -_A, _B, -_B and infinity

# (POINTS, TAPS): values of the filter's polynomial at the points, divided by the scale of ``transform_input``.
_TAP_MATRIX = (
    (1.0, 0.0, 0.0),
    (-2 / 3, -2 / 3 * _A, -1 / 3),
    (-2 / 3, 2 / 3 * _A, -1 / 3),
    (1 / 6, 1 / 6 * _B, 1 / 3),
    (1 / 6, -1 / 6 * _B, 1 / 3),
    (0.0, 0.0, 1.0),
)


def transform_taps(weight: Tensor, out: Tensor | None = None) -> Tensor:
    """Map ``(TAPS * TAPS, ...)`` filters to their ``(POINTS * POINTS, ...)`` values, in ``out`` if given."""
    values = torch.mm(_tap_matrix(weight), weight.flatten(1), out=None if out is None else out.flatten(1))
    return values.view(-1, *weight.shape[1:])


def untransform_taps(gradient: Tensor) -> Tensor:
    """Map ``(POINTS * POINTS, ...)`` gradients of values to ``(TAPS * TAPS, ...)`` gradients of filters."""
    taps = _tap_matrix(gradient).T @ gradient.flatten(1)
    return taps.view(-1, *gradient.shape[1:])


def _tap_matrix(like: Tensor) -> Tensor:
    """Return the ``(POINTS * POINTS, TAPS * TAPS)`` matrix that transforms both axes."""
    matrix = torch.tensor(_TAP_MATRIX, dtype=like.dtype, device=like.device)
    return torch.kron(matrix, matrix)


def transform_input(inputs: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Compute the values of the input along one axis.

    Args:
        inputs: one tensor per input of a tile, ``POINTS`` in total, all of one shape.
        values: receive the result, one tensor per point.
    """
    _, x1, x2, x3, x4, _ = inputs
    _evaluate_at(_A, (x4, x2), (x3, x1), -2.0, values[1:3])
    _evaluate_at(_B, (x4, x2), (x3, x1), -0.5, values[3:5])
    for position, start in ((0, 0), (5, 1)):
        torch.sub(inputs[start + 4], inputs[start + 2], alpha=2.5, out=values[position])
        values[position].add_(inputs[start])


def _evaluate_at(
    point: float,
    even_terms: tuple[Tensor, Tensor],
    odd_terms: tuple[Tensor, Tensor],
    factor: float,
    values: Sequence[Tensor],
) -> None:
    """Compute a polynomial at ``point`` and ``-point``, which share its even and its odd part.

    Args:
        point: a positive point.
        even_terms: two tensors; the even part is the first one plus ``factor`` times the second one.
        odd_terms: the same for the odd part, divided by the point.
        factor: see above.
        values: receive the two results.
    """
    plus, minus = values
    torch.add(*even_terms, alpha=factor, out=plus)
    torch.add(*odd_terms, alpha=factor, out=minus)
    plus.add_(minus, alpha=point)
    torch.sub(plus, minus, alpha=2 * point, out=minus)


def transform_output(products: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
    """Compute the outputs along one axis from the products at the points.

    Args:
        products: one tensor per point, all of one shape, which are overwritten.
        outputs: receive the result, ``OUTPUTS`` tensors.
    """
    first, even_a, odd_a, even_b, odd_b, last = products
    for plus, minus in ((even_a, odd_a), (even_b, odd_b)):  # replace two products by their sum and difference
        plus.add_(minus)
        torch.sub(plus, minus, alpha=2, out=minus)
    # The powers of the points: _A**2 = 1/2, _B**2 = 2, _B = 2 * _A.
    torch.add(even_a, even_b, out=outputs[0]).add_(first)
    torch.add(odd_a, odd_b, alpha=2, out=outputs[1]).mul_(_A)
    torch.add(even_a, even_b, alpha=4, out=outputs[2]).mul_(0.5)
    odd_a.add_(odd_b, alpha=8)
    torch.add(last, odd_a, alpha=_A / 2, out=outputs[3])


def transform_gradient(gradients: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Compute the gradients of the products along one axis; the transpose of ``transform_output``.

    Args:
        gradients: one tensor per output, ``OUTPUTS`` in total, all of one shape.
        values: receive the result, one tensor per point.
    """
    g0, g1, g2, g3 = gradients
    _evaluate_at(_A, (g0, g2), (g1, g3), 0.5, values[1:3])
    _evaluate_at(_B, (g0, g2), (g1, g3), 2.0, values[3:5])
    values[0].copy_(g0)
    values[5].copy_(g3)
