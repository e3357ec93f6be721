"""Semantic scores of a large image, averaged over its tiles.

S labels; an image of H x W pixels; a canvas of h x w cells.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from hydet.structures import SemanticScores
from hydet.structures.precision import at_least_float32

from .grid import Tile

__all__ = ["SemanticCanvas"]

# Scores that a canvas holds; one with 54 labels of a photo of 12 megapixels in full size would take 2.6 GB.
MAX_SCORES = 1 << 26


class SemanticCanvas:
    """Class probabilities of an image, averaged where tiles overlap.

    The weight of a tile falls towards its borders inside the image, where it sees less context, so that no seams
    appear. The canvas is smaller than the image if the scores of all pixels would take too much memory; heads predict
    at a quarter of the resolution or less, so little is lost.

    Args:
        image_size: (H, W) of the image.
        max_scores: number of scores that the canvas may hold.
    """

    def __init__(self, image_size: tuple[int, int], *, max_scores: int = MAX_SCORES) -> None:
        self.image_size = image_size
        self.max_scores = max_scores
        self._total: Tensor | None = None
        self._weights: Tensor | None = None

    def add(self, scores: Tensor | SemanticScores, tile: Tile) -> None:
        """Add the scores of a tile, ``(S, h_t, w_t)`` at any resolution."""
        values = scores.tensor if isinstance(scores, SemanticScores) else scores
        total, weights = self._allocate(values)
        size = (total.shape[1], total.shape[2])
        rows, y = _cells(size[0], self.image_size[0], tile.y1, tile.y2, values)
        columns, x = _cells(size[1], self.image_size[1], tile.x1, tile.x2, values)
        grid = torch.stack([x[None].expand(len(y), -1), y[:, None].expand(-1, len(x))], dim=2)
        sampled = F.grid_sample(
            at_least_float32(values)[None],
            grid[None].to(total.dtype),
            padding_mode="border",
            align_corners=False,
        )
        weight = (
            _ramp(y, tile.y1, tile.y2, self.image_size[0])[:, None]
            * _ramp(x, tile.x1, tile.x2, self.image_size[1])[None]
        ).to(total.dtype)
        total[:, rows, columns] += sampled[0].softmax(dim=0) * weight
        weights[rows, columns] += weight

    def scores(self) -> SemanticScores:
        """Return the logarithms of the mean probabilities; their softmax and argmax mean the same as those of logits."""
        assert self._total is not None and self._weights is not None  # an image has at least one tile
        # In place: a second canvas would double the memory. Finite where a probability underflows to 0.
        log_mean = self._total.div_(self._weights).clamp_(min=1e-12).log_()
        return SemanticScores(log_mean, self.image_size)

    def _allocate(self, values: Tensor) -> tuple[Tensor, Tensor]:
        if self._total is None or self._weights is None:
            height, width = self.image_size
            scale = min(1.0, math.sqrt(self.max_scores / (values.shape[0] * height * width)))
            size = (max(1, int(height * scale)), max(1, int(width * scale)))
            dtype = torch.promote_types(values.dtype, torch.float32)
            self._total = values.new_zeros((values.shape[0], *size), dtype=dtype)
            self._weights = values.new_zeros(size, dtype=dtype)
        return self._total, self._weights


def _cells(num_cells: int, length: int, start: int, stop: int, like: Tensor) -> tuple[slice, Tensor]:
    """Return the cells of the canvas with centers in a tile, and the centers from -1 to 1 within the tile."""
    side = length / num_cells
    first = math.ceil(start / side - 0.5)
    last = min(num_cells, math.ceil(stop / side - 0.5))  # exclusive
    centers = (torch.arange(first, last, device=like.device, dtype=torch.float64) + 0.5) * side
    return slice(first, last), (centers - start) / (stop - start) * 2 - 1


def _ramp(positions: Tensor, start: int, stop: int, length: int) -> Tensor:
    """Return weights that fall to nearly 0 at the borders of a tile that are not borders of the image."""
    near = torch.ones_like(positions) if start == 0 else 1 + positions
    far = torch.ones_like(positions) if stop == length else 1 - positions
    return torch.minimum(near, far).clamp(min=1e-3, max=1.0)
