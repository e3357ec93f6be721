"""Checks, order of the boxes and format of the result, shared by the ops on padded batches and their implementations."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["check_batch", "empty_result", "pack_survivors", "rank_boxes", "sort_by_score"]


def check_batch(
    boxes: Tensor,
    dim: int,
    scores: Tensor,
    groups: Tensor | None,
    valid: Tensor | None,
    max_outputs: int | None,
) -> None:
    """Raise unless the arguments of an op on ``(B, N, dim)`` boxes match each other; see ``nms_padded``."""
    if boxes.ndim != 3 or boxes.shape[2] != dim:
        raise ValueError(f"boxes must be (B, N, {dim}), got {tuple(boxes.shape)}")
    if not boxes.is_floating_point():
        raise TypeError(f"boxes must be floating point, got {boxes.dtype}")
    for name, value in (("scores", scores), ("groups", groups), ("valid", valid)):
        if value is not None and value.shape != boxes.shape[:2]:
            raise ValueError(
                f"{name} must be {tuple(boxes.shape[:2])}, one per box, got {tuple(value.shape)}"
            )
    if valid is not None and valid.dtype != torch.bool:
        raise TypeError(f"valid must be bool, got {valid.dtype}")
    if torch.compiler.is_exporting():
        return  # the number of outputs may be known only when the program runs
    if max_outputs is not None and max_outputs < 0:
        raise ValueError(f"max_outputs must not be negative, got {max_outputs}")


def empty_result(scores: Tensor, max_outputs: int) -> tuple[Tensor, Tensor]:
    """Return indices and counts without values, for the fake kernels."""
    indices = scores.new_empty(scores.shape[0], max_outputs, dtype=torch.int64)
    return indices, scores.new_empty(scores.shape[0], dtype=torch.int64)


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
