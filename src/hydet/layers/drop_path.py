"""Stochastic depth."""

from __future__ import annotations

from torchvision.ops import StochasticDepth

__all__ = ["DropPath"]


class DropPath(StochasticDepth):
    """Stochastic depth: drop a residual branch at random per image in training, and scale up the branches that stay.

    Args:
        drop_prob: probability that the branch of an image is dropped, in [0, 1].

    Raises:
        ValueError: if ``drop_prob`` is outside [0, 1].

    Source: Huang et al. 2016 (arXiv:1603.09382).
    """

    def __init__(self, *, drop_prob: float = 0.0) -> None:
        if not 0 <= drop_prob <= 1:
            raise ValueError(f"drop_prob must lie in [0, 1], got {drop_prob}")
        super().__init__(p=drop_prob, mode="row")
