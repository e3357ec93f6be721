"""Definition of ``sigmoid_focal_loss``: the formula of the paper with one-hot targets."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["forward_reference"]


def forward_reference(levels: Sequence[Tensor], targets: Tensor, alpha: float, gamma: float) -> Tensor:
    """Compute ``sigmoid_focal_loss``. Autograd gives the gradient."""
    logits = torch.cat(list(levels), dim=1)  # (B, R, K)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    num_classes = logits.shape[2]
    counted = targets >= 0
    logits = logits[counted]
    one_hot = F.one_hot(targets[counted], num_classes + 1)[:, :num_classes].to(logits.dtype)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, one_hot, reduction="none")
    p = logits.sigmoid()
    p_target = torch.where(one_hot == 1, p, 1 - p)
    loss = cross_entropy * (1 - p_target) ** gamma
    if alpha >= 0:
        loss = loss * torch.where(one_hot == 1, alpha, 1 - alpha)
    return loss.sum()
