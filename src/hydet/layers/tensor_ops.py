"""Variants of torch functions for empty and single inputs, documented aliases, and sizes as pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["as_pair", "cat", "cross_entropy", "interpolate", "nonzero_tuple"]

interpolate = F.interpolate


def as_pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """Return ``size`` as ``(height, width)``; one number stands for both."""
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Concatenate tensors; a single tensor is returned without a copy.

    Raises:
        TypeError: if ``tensors`` is not a list or tuple.
    """
    if not isinstance(tensors, list | tuple):
        raise TypeError(f"cat takes a list or tuple of tensors, got {type(tensors).__name__}")
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim)


def cross_entropy(input: Tensor, target: Tensor, *, reduction: str = "mean", **kwargs: Any) -> Tensor:
    """Compute ``F.cross_entropy``, but return 0 instead of NaN for the mean over zero targets.

    The 0 stays connected to ``input``, so that all parameters receive a gradient.

    Args:
        input: ``(N, K)`` logits, or any shape that ``F.cross_entropy`` accepts.
        target: ``(N,)`` classes.
        reduction: ``none``, ``mean`` or ``sum``.
        **kwargs: other arguments of ``F.cross_entropy``.
    """
    if target.numel() == 0 and reduction == "mean":
        return input.sum() * 0.0
    return F.cross_entropy(input, target, reduction=reduction, **kwargs)


def nonzero_tuple(x: Tensor) -> tuple[Tensor, ...]:
    """Return the indices of non-zero elements, one vector per dimension; a scalar counts as one element."""
    return (x.unsqueeze(0) if x.dim() == 0 else x).nonzero(as_tuple=True)
