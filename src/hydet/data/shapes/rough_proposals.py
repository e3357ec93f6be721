"""Proposals for generated images, for models without a proposal generator."""

from __future__ import annotations

import numpy as np
import torch

from hydet.data.datasets.record import Proposals

__all__ = ["draw_rough_proposals"]

# Perturbed copies per object. Some overlap it by more than half, so that training has foreground regions.
_COPIES = 8


def draw_rough_proposals(
    rng: np.random.Generator, boxes: np.ndarray, height: int, width: int, num_proposals: int
) -> Proposals:
    """Draw proposals: perturbed copies of the objects' boxes, then random boxes.

    Args:
        rng: source of randomness.
        boxes: ``(N, 4)`` xyxy of the objects, in pixels.
        height: height of the image, in pixels.
        width: width of the image, in pixels.
        num_proposals: number of proposals.

    Returns:
        ``num_proposals`` boxes inside the image, perturbed copies before random boxes; the logits descend.
    """
    copies = boxes.repeat(_COPIES, axis=0)[:num_proposals].astype(np.float64)
    sides = np.tile(copies[:, 2:] - copies[:, :2], 2)
    copies += rng.normal(0.0, 0.12, copies.shape) * sides
    corners = rng.random((num_proposals - len(copies), 2, 2)) * (width, height)
    random = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    drawn = np.concatenate([copies, random]).clip(0, np.tile((width, height), 2))
    low, high = np.minimum(drawn[:, :2], drawn[:, 2:]), np.maximum(drawn[:, :2], drawn[:, 2:])
    return Proposals(
        boxes=torch.from_numpy(np.concatenate([low, high], axis=1)).float(),
        objectness_logits=torch.linspace(4, -4, num_proposals),
    )
