"""Definition of ``paste_masks``: sample each mask at all pixels of the image with ``grid_sample``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["forward_reference"]


def forward_reference(masks: Tensor, boxes: Tensor, height: int, width: int, threshold: float) -> Tensor:
    """Compute ``paste_masks``, one mask at a time."""
    masks, boxes = masks.float(), boxes.float()
    values = masks.new_zeros(masks.shape[0], height, width)
    for i, (x1, y1, x2, y2) in enumerate(boxes):
        box_width, box_height = x2 - x1, y2 - y1
        if not (0 < box_width < torch.inf and 0 < box_height < torch.inf) or masks[i].numel() == 0:
            continue
        # Pixel centers relative to the box, from -1 at its left and top sides to 1 at its right and bottom sides.
        x = (torch.arange(width, device=masks.device) + 0.5 - x1) / box_width * 2 - 1
        y = (torch.arange(height, device=masks.device) + 0.5 - y1) / box_height * 2 - 1
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=2)  # (height, width, 2)
        values[i] = F.grid_sample(masks[None, None, i], grid[None], align_corners=False)[0, 0]
    return values >= threshold if threshold >= 0 else (values * 255).to(torch.uint8)
