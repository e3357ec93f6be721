"""Greedy suppression in PyTorch, from a list of overlapping pairs."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["greedy_survivors"]


def greedy_survivors(suppressor: Tensor, suppressed: Tensor, num_boxes: int) -> Tensor:
    """Return the boxes that greedy suppression keeps: those that no kept box of better rank overlaps.

    Repeats "keep a box unless a kept box suppresses it" until nothing changes. After k rounds the first k boxes are
    final, so the fixed point is the greedy result. The number of rounds is the length of the longest chain of
    suppressions, which is small in practice.

    Args:
        suppressor: ``(E,)`` index of the better-ranked box of each overlapping pair.
        suppressed: ``(E,)`` index of the other box, greater than its suppressor.
        num_boxes: number of boxes N.

    Returns:
        ``(N,)`` bool, True for the boxes to keep.
    """
    keep = torch.ones(num_boxes, dtype=torch.bool, device=suppressor.device)
    while True:
        new_keep = torch.ones_like(keep)
        new_keep[suppressed.masked_select(keep.index_select(0, suppressor))] = False
        if torch.equal(new_keep, keep):
            return keep
        keep = new_keep
