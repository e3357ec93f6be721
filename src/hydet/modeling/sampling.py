"""Random samples of labeled predictions with a limited fraction of foreground."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["sample_balanced", "subsample_labels"]


def subsample_labels(
    labels: Tensor, num_samples: int, positive_fraction: float, bg_label: int
) -> tuple[Tensor, Tensor]:
    """Sample foreground up to a fraction, and fill up with background.

    Args:
        labels: ``(N,)``; -1 is never sampled, ``bg_label`` is background, all else is foreground.
        num_samples: number of samples; fewer if there are not enough candidates.
        positive_fraction: at most ``int(num_samples * positive_fraction)`` samples are foreground.
        bg_label: label of the background.

    Returns:
        Indices of the sampled foreground and of the sampled background, in random order.
    """
    positive = ((labels != -1) & (labels != bg_label)).nonzero().squeeze(1)
    negative = (labels == bg_label).nonzero().squeeze(1)
    num_positive = min(positive.shape[0], int(num_samples * positive_fraction))
    num_negative = min(negative.shape[0], num_samples - num_positive)
    return _draw(positive, num_positive), _draw(negative, num_negative)


def _draw(candidates: Tensor, count: int) -> Tensor:
    order = torch.randperm(candidates.shape[0], device=candidates.device)
    return candidates[order[:count]]


def sample_balanced(labels: Tensor, num_samples: int, positive_fraction: float, bg_label: int) -> Tensor:
    """Sample each row of a batch as ``subsample_labels`` does, and return a mask.

    No shape depends on the data, so nothing waits for the device.

    Args:
        labels: ``(..., N)``; each row is sampled separately.
        num_samples: number of samples per row; fewer if there are not enough candidates.
        positive_fraction: at most ``int(num_samples * positive_fraction)`` samples per row are foreground.
        bg_label: label of the background.

    Returns:
        ``(..., N)`` bool, True for samples.
    """
    keys = torch.rand(labels.shape, device=labels.device)
    is_negative = labels == bg_label
    is_positive = (labels != -1) & ~is_negative
    positive = _highest(is_positive, keys, int(num_samples * positive_fraction))
    num_negative = num_samples - positive.sum(dim=-1, keepdim=True)  # (..., 1)
    return positive | _highest(is_negative, keys, num_samples, num_negative)


def _highest(mask: Tensor, keys: Tensor, k: int, limits: Tensor | None = None) -> Tensor:
    """Return a mask of the k entries per row with the highest keys among those where ``mask`` is True.

    Args:
        mask: ``(..., N)`` bool.
        keys: ``(..., N)`` in [0, 1).
        k: number of entries per row, at most.
        limits: ``(..., 1)`` smaller numbers of entries per row, which may depend on the data.
    """
    top_keys, index = torch.where(mask, keys, -1.0).topk(min(k, mask.shape[-1]), dim=-1)  # (..., k)
    is_top = top_keys >= 0
    if limits is not None:
        is_top = is_top & (torch.arange(top_keys.shape[-1], device=mask.device) < limits)
    return torch.zeros_like(mask).scatter(-1, index, is_top)
