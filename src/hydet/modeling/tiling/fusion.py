"""Joining the parts of one object that several tiles have detected.

F parts, K keypoints, masks of M x M.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from hydet.structures import Boxes, Instances, ROIMasks, RotatedBoxes

__all__ = ["fuse"]


def fuse(parts: Instances) -> Instances:
    """Join the parts of one object.

    The box encloses all parts; rotated boxes are enclosed in the direction of the largest part. The mask is the maximum
    of the masks, each keypoint the one with the highest score, and the score that of the best part.

    Args:
        parts: F detections of a class in one frame, with ``pred_boxes``, ``scores`` and ``pred_classes``, and optionally
            ``pred_masks`` as ``ROIMasks`` and ``pred_keypoints``.

    Returns:
        One detection with the same fields.
    """
    best = parts[int(parts.scores.argmax())]
    fields = best.get_fields()
    boxes = parts.pred_boxes.tensor
    if boxes.shape[1] == 5:
        return Instances(parts.image_size, **{**fields, "pred_boxes": RotatedBoxes(_enclose_rotated(boxes))})
    box = torch.cat([boxes[:, :2].amin(dim=0), boxes[:, 2:].amax(dim=0)])[None]  # (1, 4)
    fields = {**fields, "pred_boxes": Boxes(box)}
    if parts.has("pred_masks"):
        moved = _resample_masks(parts.pred_masks.tensor, boxes, box[0])
        fields["pred_masks"] = ROIMasks(moved.amax(dim=0, keepdim=True).to(parts.pred_masks.tensor.dtype))
    if parts.has("pred_keypoints"):
        keypoints = parts.pred_keypoints  # (F, K, 3)
        rows = keypoints[:, :, 2].argmax(dim=0)  # (K,)
        fields["pred_keypoints"] = keypoints[rows, torch.arange(rows.shape[0], device=rows.device)][None]
    return Instances(parts.image_size, **fields)


def _enclose_rotated(boxes: Tensor) -> Tensor:
    """Return the ``(1, 5)`` box around ``(F, 5)`` rotated boxes that has the angle of the largest one."""
    largest = boxes[(boxes[:, 2] * boxes[:, 3]).argmax()]
    axes, _ = _axes(largest[4:])  # (1, 2, 2)
    _, corners = _axes(boxes[:, 4], boxes[:, 2:4])
    corners = corners + boxes[:, None, :2]  # (F, 4, 2)
    along = corners.flatten(0, 1) @ axes[0].T  # (F * 4, 2): coordinates along width and height
    low, high = along.amin(dim=0), along.amax(dim=0)
    center = ((low + high) / 2) @ axes[0]
    return torch.cat([center, high - low, largest[4:]])[None]


def _axes(degrees: Tensor, sides: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return unit vectors along width and height, ``(F, 2, 2)``, and the corners around the center, ``(F, 4, 2)``."""
    angle = degrees.deg2rad()
    sin, cos = angle.sin(), angle.cos()
    # Counter-clockwise on screen, where y points down.
    axes = torch.stack([torch.stack([cos, -sin], dim=1), torch.stack([sin, cos], dim=1)], dim=1)
    halves = torch.zeros_like(axes[:, 0]) if sides is None else sides / 2
    signs = axes.new_tensor([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    return axes, (signs * halves[:, None]) @ axes


def _resample_masks(masks: Tensor, boxes: Tensor, box: Tensor) -> Tensor:
    """Resample ``(F, M, M)`` masks that are relative to ``(F, 4)`` boxes over another box; 0 outside their boxes."""
    size = masks.shape[-1]
    centers = (torch.arange(size, device=masks.device, dtype=boxes.dtype) + 0.5) / size
    x = box[0] + centers * (box[2] - box[0])
    y = box[1] + centers * (box[3] - box[1])
    x1, y1, x2, y2 = boxes.unbind(1)
    grid_x = (x - x1[:, None]) / (x2 - x1).clamp(min=1e-6)[:, None] * 2 - 1  # (F, M) in [-1, 1] inside
    grid_y = (y - y1[:, None]) / (y2 - y1).clamp(min=1e-6)[:, None] * 2 - 1
    grid = torch.stack([grid_x[:, None].expand(-1, size, -1), grid_y[:, :, None].expand(-1, -1, size)], dim=3)
    return F.grid_sample(masks[:, None].to(grid.dtype), grid, align_corners=False)[:, 0]
