"""Highest scores of each row, and the values that belong to them."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

__all__: list[str] = []


def top_k(scores: Tensor, k: int) -> Tensor:
    """Return the indices of the highest scores of each row.

    Args:
        scores: ``(N, R)``; NaN ranks highest.
        k: number of indices per row; rows with fewer scores return all of them.

    Returns:
        ``(N, min(k, R))`` int64 indices by descending score.
    """
    return scores.topk(smaller(k, scores.shape[1]), dim=1).indices


def padded_top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the highest scores of each row and their indices.

    In a program of ``torch.export`` for any number of scores, there are always k of each, so that the sizes of all that
    follows are plain numbers. Formulas of the image size would make the export several times slower.

    Args:
        scores: ``(N, R)``; NaN ranks highest.
        k: number of scores per row; rows with fewer scores return all of them, or are padded.

    Returns:
        ``(N, min(k, R))`` or ``(N, k)`` scores in descending order and int64 indices. Padding has the score minus infinity
        and the index of any score.
    """
    size = scores.shape[1]
    if not (torch.compiler.is_exporting() and isinstance(size, torch.SymInt)):
        indices = top_k(scores, k)
        return scores.gather(1, indices), indices
    values, indices = F.pad(scores, (0, k), value=-torch.inf).topk(k, dim=1)
    return values, indices.clamp(max=size - 1)


def smaller(a: int, b: int) -> int:
    """Return the smaller of two sizes; unlike ``min``, it keeps sizes symbolic in an exported program."""
    return cast(int, torch.sym_min(a, b))


def nan_to_lowest(scores: Tensor) -> Tensor:
    """Replace NaN by minus infinity, so that it ranks lowest instead of highest."""
    return scores.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)


def gather_rows(values: Tensor, index: Tensor) -> Tensor:
    """Gather rows of a batch: ``(N, R, ...)`` values and ``(N, k)`` indices to ``(N, k, ...)``."""
    image = torch.arange(values.shape[0], device=values.device)[:, None]
    return values[image, index]
