"""Images that show a training step: the ground truth beside proposals, detections, labels or masks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

__all__ = [
    "draw_boxes_beside_ground_truth",
    "draw_labels_beside_ground_truth",
    "draw_masks_beside_ground_truth",
]

MAX_MASKS, MASK_SIDE = 8, 112


def draw_boxes_beside_ground_truth(
    image: Tensor, gt_boxes: Tensor, boxes: Tensor, *, bgr: bool = False
) -> Tensor:
    """Draw an image twice: with its ground truth (left, green), and with other boxes (right, orange).

    Args:
        image: ``(C, H, W)`` in 0 to 255. The first three channels are drawn, or the first one if there are fewer.
        gt_boxes: ``(N, 4)`` boxes in pixels of the image, or ``(N, 5)`` rotated boxes.
        boxes: ``(M, 4)`` or ``(M, 5)`` boxes, such as proposals or detections.
        bgr: True if the channels are in the order blue, green, red.

    Returns:
        ``(3, H, 2 * W)`` uint8 RGB image.
    """
    image = _to_rgb(image, bgr)
    sides = []
    for side, color in ((gt_boxes, "lime"), (boxes, "orange")):
        drawable = _to_drawable(side.detach().cpu())
        sides.append(draw_bounding_boxes(image, drawable, colors=color) if drawable.shape[0] else image)
    return torch.cat(sides, dim=2)


def draw_labels_beside_ground_truth(
    image: Tensor, gt_labels: Tensor, labels: Tensor, num_classes: int, *, bgr: bool = False
) -> Tensor:
    """Draw an image twice: tinted by its ground-truth labels (left), and by predicted labels (right).

    Args:
        image: ``(C, H, W)`` in 0 to 255. The first three channels are drawn, or the first one if there are fewer.
        gt_labels: ``(H, W)`` labels. Pixels whose label is outside 0 to ``num_classes - 1`` are not tinted.
        labels: ``(H, W)`` predicted labels.
        num_classes: number of labels.
        bgr: True if the channels are in the order blue, green, red.

    Returns:
        ``(3, H, 2 * W)`` uint8 RGB image.
    """
    image = _to_rgb(image, bgr)
    classes = torch.arange(num_classes)[:, None, None]
    sides = [
        draw_segmentation_masks(image, side.detach().cpu() == classes, alpha=0.6)
        for side in (gt_labels, labels)
    ]
    return torch.cat(sides, dim=2)


def draw_masks_beside_ground_truth(logits: Tensor, gt_masks: Tensor) -> Tensor:
    """Draw the first masks of a mask head, one per row: predictions (left), and their targets (right).

    Args:
        logits: ``(R, M, M)`` mask logits of R regions.
        gt_masks: ``(R, M, M)`` targets, bool or in [0, 1].

    Returns:
        ``(3, n * 112, 224)`` uint8 RGB image of the first ``n = min(R, 8)`` regions.
    """
    predictions = logits.detach()[:MAX_MASKS].sigmoid()
    pairs = torch.cat([predictions, gt_masks[:MAX_MASKS].to(predictions)], dim=2)  # (n, M, 2M)
    rows = F.interpolate(pairs[None], size=(MASK_SIDE, 2 * MASK_SIDE), mode="nearest")[0]
    return (rows.flatten(0, 1) * 255).to(torch.uint8).cpu().expand(3, -1, -1)


def _to_rgb(image: Tensor, bgr: bool) -> Tensor:
    image = image.detach().cpu()
    image = image[:3] if image.shape[0] >= 3 else image[:1].expand(3, -1, -1)
    return (image.flip(0) if bgr else image).clamp(0, 255).to(torch.uint8)


def _to_drawable(boxes: Tensor) -> Tensor:
    """Turn rotated boxes into ``(N, 8)`` corners; drop upright boxes without area, which torchvision rejects."""
    if boxes.shape[1] != 5:
        return boxes[(boxes[:, 2:] > boxes[:, :2]).all(dim=1)]
    center, (w, h), angle = boxes[:, :2], (boxes[:, 2:4] / 2).unbind(1), boxes[:, 4].deg2rad()
    along = torch.stack([angle.cos() * w, -angle.sin() * w], dim=1)  # to the right side; y points down
    down = torch.stack([angle.sin() * h, angle.cos() * h], dim=1)
    corners = [center - along - down, center + along - down, center + along + down, center - along + down]
    return torch.cat(corners, dim=1).round()
