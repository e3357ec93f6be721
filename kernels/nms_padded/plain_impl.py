"""Non-maximum suppression of upright boxes by one call of torchvision's op, for exported programs."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["forward_plain"]


def forward_plain(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor | None,
    valid: Tensor | None,
    iou_threshold: float,
    max_outputs: int,
) -> tuple[Tensor, Tensor]:
    """Compute ``nms_padded`` in operators that a process without hydet has: those of PyTorch and ``torchvision::nms``.

    All groups of all images are moved apart and suppressed in one call. The distances are exact in float64, which is
    also the precision of the IoU here; the other implementations compute it in float32.
    """
    num_images, num_boxes = scores.shape[0], scores.shape[1]
    if valid is None:
        valid = torch.ones_like(scores, dtype=torch.bool)
    # Padding becomes boxes without area, which suppress nothing.
    coordinates = torch.where(valid[..., None], boxes.double(), 0.0)
    image = torch.arange(num_images, device=boxes.device)[:, None]
    if groups is None:
        groups = torch.zeros_like(scores, dtype=torch.int64)
    # One more number, since there may be no box.
    num_groups = torch.cat([groups.flatten(), groups.new_zeros(1)]).max() + 1
    extent = torch.cat([coordinates.flatten(), coordinates.new_zeros(1)])
    offset = (image * num_groups + groups).double() * (extent.max() - extent.min() + 1)
    shifted = (coordinates + offset[..., None]).flatten(0, 1)
    ranking = torch.where(valid, scores.double(), -torch.inf).flatten()
    # Compilers assume that an unknown number is at least two: two boxes without area are always kept.
    shifted = torch.cat([shifted, shifted.new_zeros(2, 4)])
    ranking = torch.cat([ranking, ranking.new_full((2,), -torch.inf)])
    survivors = torch.ops.torchvision.nms(shifted, ranking, iou_threshold)
    survives = torch.zeros_like(ranking, dtype=torch.bool).index_fill(0, survivors, True)
    survives = survives[: num_images * num_boxes].view(num_images, num_boxes) & valid
    ranked = torch.where(survives, scores, -torch.inf)
    order = ranked.sort(dim=1, descending=True, stable=True).indices[:, :max_outputs]
    counts = survives.sum(dim=1).clamp(max=max_outputs)
    is_filled = torch.arange(order.shape[1], device=order.device) < counts[:, None]
    return torch.where(is_filled, order, 0), counts
