"""Work in parts of a bounded size."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["chunks"]


def chunks(ends: Tensor, limit: int) -> Iterator[tuple[slice, int]]:
    """Neighbouring items with up to ``limit`` entries in all, at least one item at a time.

    Args:
        ends: ``(N,)`` integers, the entries of items up to and with each.
        limit: entries.

    Yields:
        (items, entries before them)
    """
    first, done = 0, 0
    while first < ends.shape[0]:
        last = max(int(torch.searchsorted(ends, done + limit, right=True)), first + 1)
        yield slice(first, last), done
        first, done = last, int(ends[last - 1])
