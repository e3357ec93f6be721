"""Random subsets of labelled predictions."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["sample_balanced", "subsample_labels"]


def subsample_labels(
    labels: Tensor, num_samples: int, positive_fraction: float, bg_label: int
) -> tuple[Tensor, Tensor]:
    """Draw foreground up to a fraction, and background for the rest.

    Args:
        labels: ``(N,)``; -1 is never drawn, ``bg_label`` is background, all else foreground.
        num_samples: to draw in all; fewer where there are not enough.
        positive_fraction: at most ``int(num_samples * positive_fraction)`` are foreground.
        bg_label: see ``labels``.

    Returns:
        Indices of the foreground drawn and of the background drawn, in random order.
    """
    positive = ((labels != -1) & (labels != bg_label)).nonzero().squeeze(1)
    negative = (labels == bg_label).nonzero().squeeze(1)
    num_positive = min(positive.shape[0], int(num_samples * positive_fraction))
    num_negative = min(negative.shape[0], num_samples - num_positive)
    return _drawn(positive, num_positive), _drawn(negative, num_negative)


def _drawn(candidates: Tensor, count: int) -> Tensor:
    order = torch.randperm(candidates.shape[0], device=candidates.device)
    return candidates[order[:count]]


def sample_balanced(labels: Tensor, num_samples: int, positive_fraction: float, bg_label: int) -> Tensor:
    """``subsample_labels`` for a batch, as a mask: no shape depends on the data, so nothing waits for the device.

    Args:
        labels: ``(..., N)``; each row is sampled by itself.
        num_samples: see ``subsample_labels``, as the rest.
        positive_fraction: at most ``int(num_samples * positive_fraction)`` are foreground.
        bg_label: the label of background.

    Returns:
        ``(..., N)`` bool, true where drawn.
    """
    keys = torch.rand(labels.shape, device=labels.device)
    is_negative = labels == bg_label
    is_positive = (labels != -1) & ~is_negative
    positive = _highest(is_positive, keys, int(num_samples * positive_fraction))
    left = num_samples - positive.sum(dim=-1, keepdim=True)  # (..., 1)
    return positive | _highest(is_negative, keys, num_samples, left)


def _highest(mask: Tensor, keys: Tensor, most: int, limits: Tensor | None = None) -> Tensor:
    """Where ``mask`` is true and keys are highest, in at most ``most`` (and ``limits``) places of each row."""
    found, index = torch.where(mask, keys, -1.0).topk(min(most, mask.shape[-1]), dim=-1)  # (..., most)
    drawn = found >= 0
    if limits is not None:
        drawn = drawn & (torch.arange(found.shape[-1], device=mask.device) < limits)
    return torch.zeros_like(mask).scatter(-1, index, drawn)
