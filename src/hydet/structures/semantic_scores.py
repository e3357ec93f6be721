"""Scores of semantic labels that are resized to the image when they are read."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .precision import at_least_float32

__all__ = ["SemanticScores", "semantic_labels"]

# Resized scores that `labels` holds at a time; 54 classes of a photo of 12 megapixels would take 2.6 GB.
SCORES_AT_ONCE = 1 << 26


class SemanticScores:
    """Scores of S labels at the resolution of a network, and the size of the image.

    Args:
        tensor: ``(S, h, w)`` scores of the network's input without its padding.
        image_size: (H, W) of the image in pixels.

    Raises:
        ValueError: if the tensor does not have three dimensions.
    """

    def __init__(self, tensor: Tensor, image_size: tuple[int, int]) -> None:
        if tensor.ndim != 3:
            raise ValueError(
                f"SemanticScores takes a tensor of shape (S, h, w), got shape {tuple(tensor.shape)}"
            )
        self.tensor = tensor
        self.image_size = image_size

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (S, H, W) of the resized scores."""
        return (self.tensor.shape[0], *self.image_size)

    def to(self, device: torch.device | str | int) -> SemanticScores:
        """Return the scores on ``device``."""
        return SemanticScores(self.tensor.to(device), self.image_size)

    def resize(self, start: int = 0, stop: int | None = None) -> Tensor:
        """Return the ``(S, H, W)`` scores of the labels ``start`` to ``stop - 1``, bilinear, at least float32.

        They may share memory with ``tensor`` if it has the size of the image.
        """
        scores = self.tensor[None, start:stop]
        scores = at_least_float32(scores)
        if scores.shape[-2:] == self.image_size:  # the same numbers
            return scores[0]
        return F.interpolate(scores, size=self.image_size, mode="bilinear", align_corners=False)[0]

    def labels(self) -> Tensor:
        """Return the ``(H, W)`` int64 labels of the highest scores, the first of equal ones.

        Only a few classes are resized at a time, so memory does not grow with their number.
        """
        step = max(1, SCORES_AT_ONCE // max(1, self.image_size[0] * self.image_size[1]))
        best, labels = _maximum(self.resize(0, step))
        for start in range(step, self.tensor.shape[0], step):
            value, index = _maximum(self.resize(start, start + step))
            is_higher = value > best
            labels = torch.where(is_higher, index + start, labels)
            best = torch.where(is_higher, value, best)
        return labels


def semantic_labels(scores: Tensor | SemanticScores) -> Tensor:
    """Return the ``(H, W)`` int64 labels of the highest scores, given ``(S, H, W)`` scores of either kind."""
    return scores.labels() if isinstance(scores, SemanticScores) else _maximum(scores)[1]


def _maximum(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return the ``(H, W)`` maxima of ``(S, H, W)`` scores, and their first labels."""
    if scores.device.type != "cpu" or scores.shape[0] == 0:
        values, indices = scores.max(dim=0)
        return values, indices
    # On a CPU, torch's argmax takes three times as long as a comparison of one map after the other.
    scores = scores.detach()
    best, labels = scores[0].clone(), torch.zeros(scores.shape[1:], dtype=torch.int32)
    for label in range(1, scores.shape[0]):
        labels.masked_fill_(scores[label] > best, label)
        torch.maximum(best, scores[label], out=best)
    return best, labels.long()
