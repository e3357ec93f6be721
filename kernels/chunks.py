"""Partition of work into chunks of bounded size."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["chunks"]


def chunks(ends: Tensor, limit: int) -> Iterator[tuple[slice, int]]:
    """Group consecutive items into chunks of at most ``limit`` entries.

    An item with more than ``limit`` entries is a chunk of its own.

    Args:
        ends: ``(N,)`` integers, cumulative number of entries up to and including each item.
        limit: maximum number of entries per chunk.

    Yields:
        The items of a chunk, and the number of entries before it.
    """
    first, num_before = 0, 0
    while first < ends.shape[0]:
        last = max(int(torch.searchsorted(ends, num_before + limit, right=True)), first + 1)
        yield slice(first, last), num_before
        first, num_before = last, int(ends[last - 1])
