"""Selection among the scores of a dense head: the best anchors of each level, then the best pairs of anchor and class.

N images, A anchors per cell, R = H * W * A anchors on a level, K classes, V values per anchor.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .top_k import gather_rows, nan_to_lowest, padded_top_k, top_k

__all__: list[str] = []


def by_cell(predictions: Tensor, num_values: int) -> Tensor:
    """View a head's output ``(N, A * V, H, W)`` as ``(N, H, W, A, V)``, without a copy."""
    split: Tensor = predictions.unflatten(1, (-1, num_values))  # (N, A, V, H, W)
    return split.permute(0, 3, 4, 1, 2)


def by_anchor(predictions: Tensor, num_values: int) -> Tensor:
    """Reorder a head's output ``(N, A * V, H, W)`` to ``(N, R, V)``."""
    return by_cell(predictions, num_values).flatten(1, 3)


def best_of_classes(predictions: Tensor, num_classes: int) -> Tensor:
    """Return the highest logit of each anchor: ``(N, A * K, H, W)`` to ``(N, R)``."""
    if predictions.stride(1) == 1:  # channels last: reducing adjacent values is ten times faster
        return by_cell(predictions, num_classes).amax(dim=4).flatten(1)
    split: Tensor = predictions.unflatten(1, (-1, num_classes))  # (N, A, K, H, W)
    return split.amax(dim=2).permute(0, 2, 3, 1).flatten(1)


def gather_anchors(values: Tensor, anchors: Tensor) -> Tensor:
    """Gather the values of some anchors: ``(N, H, W, A, V)`` or ``(N, R, V)``, and ``(N, k)``, to ``(N, k, V)``."""
    if values.ndim == 3:
        return gather_rows(values, anchors)
    image = torch.arange(values.shape[0], device=values.device)[:, None]
    width, per_cell = values.shape[2:4]
    cells = anchors // per_cell
    rows = cells // width
    # Not cells % width: ONNX has no remainder of a tensor by a width that is known only when the program runs.
    return values[image, rows, cells - rows * width, anchors - cells * per_cell]


def top_anchors(best_scores: Tensor, k: int) -> Tensor:
    """Return the anchors whose best class scores highest: ``(N, R)`` to ``(N, min(k, R))``; NaN ranks lowest.

    The k best pairs of anchor and class all belong to these anchors, so no other scores need to be sorted.
    """
    return top_k(nan_to_lowest(best_scores), k)


def top_pairs(scores: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the k best pairs of anchor and class; NaN ranks lowest. See ``padded_top_k`` about padding.

    Args:
        scores: ``(N, R, K)``.
        k: number of pairs per image, at most.

    Returns:
        ``(N, k)`` scores, anchors and classes, by descending score.
    """
    num_classes = scores.shape[2]
    top_scores, pairs = padded_top_k(nan_to_lowest(scores.flatten(1)), k)
    return top_scores, pairs // num_classes, pairs % num_classes
