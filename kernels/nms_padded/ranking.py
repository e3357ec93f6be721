"""Order of the boxes and format of the result, shared by the implementations of ``nms_padded``."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["pack_survivors", "rank_boxes", "sort_by_score"]


def sort_by_score(scores: Tensor) -> Tensor:
    """Return the ``(B, N)`` order of the boxes of each image by descending score; equal scores rank by position."""
    return scores.argsort(dim=1, descending=True, stable=True)


def rank_boxes(scores: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the ``(B, N)`` order of ``sort_by_score``, and ``valid`` in that order; all boxes are valid by default."""
    order = sort_by_score(scores)
    return order, torch.ones_like(order, dtype=torch.bool) if valid is None else valid.gather(1, order)


def pack_survivors(order: Tensor, keep: Tensor, max_outputs: int) -> tuple[Tensor, Tensor]:
    """Return the first ``max_outputs`` kept boxes per image, without a host synchronization.

    Args:
        order: ``(B, N)`` indices of boxes by descending score.
        keep: ``(B, N)`` bool in that order.
        max_outputs: number of outputs K per image.

    Returns:
        ``(B, K)`` int64 indices, 0 behind the last kept box, and ``(B,)`` int64 counts.
    """
    rank = keep.cumsum(dim=1) - 1
    slot = torch.where(keep & (rank < max_outputs), rank, max_outputs)  # all other boxes go to one extra slot
    indices = order.new_zeros(order.shape[0], max_outputs + 1).scatter_(1, slot, order)
    return indices[:, :max_outputs].contiguous(), keep.sum(dim=1).clamp_(max=max_outputs)
