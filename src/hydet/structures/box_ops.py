"""Operations on each box alone, on plain tensors; used by the containers and by batched box selection."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

__all__ = ["clip_boxes", "clip_rotated_boxes", "enclosing_boxes", "wrap_angles"]

Limit = float | Tensor
Angles = TypeVar("Angles", float, Tensor)


def clip_boxes(boxes: Tensor, height: Limit, width: Limit) -> Tensor:
    """Clip all coordinates to ``[0, width] x [0, height]``.

    Args:
        boxes: ``(..., 4)`` xyxy boxes in pixels. NaN stays NaN.
        height: height of the image in pixels, or one per box: a tensor that broadcasts with ``boxes[..., 0]``.
        width: width of the image in pixels, or one per box.

    Returns:
        ``(..., 4)`` boxes; a box outside the image becomes an empty box on its border.
    """
    x1, y1, x2, y2 = (coordinate.clamp(min=0) for coordinate in boxes.unbind(-1))
    return torch.stack(
        [x1.clamp(max=width), y1.clamp(max=height), x2.clamp(max=width), y2.clamp(max=height)], dim=-1
    )


def clip_rotated_boxes(boxes: Tensor, height: Limit, width: Limit, angle_threshold: float = 1.0) -> Tensor:
    """Wrap angles into [-180, 180), and clip the boxes that are nearly upright.

    A rotated box clipped at the border of the image is no longer a rectangle, so all other boxes stay unchanged.
    Clipping keeps the angle of a box and never makes a side longer.

    Args:
        boxes: ``(..., 5)`` as (cx, cy, w, h, degrees counter-clockwise), in pixels.
        height: height of the image in pixels, or one per box: a tensor that broadcasts with ``boxes[..., 0]``.
        width: width of the image in pixels, or one per box.
        angle_threshold: boxes with ``|angle|`` up to this many degrees count as upright. A box at 180 degrees does
            not.

    Returns:
        ``(..., 5)`` boxes.
    """
    x, y, w, h, angle = boxes.unbind(-1)
    angle = wrap_angles(angle)
    corners = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], dim=-1)
    x1, y1, x2, y2 = clip_boxes(corners, height, width).unbind(-1)
    clipped = [(x1 + x2) / 2, (y1 + y2) / 2, torch.minimum(w, x2 - x1), torch.minimum(h, y2 - y1), angle]
    is_upright = angle.abs() <= angle_threshold
    return torch.where(
        is_upright[..., None], torch.stack(clipped, dim=-1), torch.stack([x, y, w, h, angle], dim=-1)
    )


def enclosing_boxes(boxes: Tensor) -> Tensor:
    """Return the smallest upright box around each rotated box.

    Args:
        boxes: ``(..., 5)`` as (cx, cy, w, h, degrees counter-clockwise).

    Returns:
        ``(..., 4)`` xyxy boxes in the same unit.
    """
    center, sides, angle = boxes[..., :2], boxes[..., 2:4], boxes[..., 4:].deg2rad()
    reach = (angle.cos().abs() * sides + angle.sin().abs() * sides.flip(-1)) / 2
    return torch.cat([center - reach, center + reach], dim=-1)


def wrap_angles(degrees: Angles) -> Angles:
    """Return the same angle or angles in [-180, 180)."""
    return (degrees + 180.0) % 360.0 - 180.0
