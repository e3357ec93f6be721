"""Precision of numbers that float16 and bfloat16 are too coarse for."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["at_least_float32"]


def at_least_float32(values: Tensor) -> Tensor:
    """Return float16 and bfloat16 values as float32, and others as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
