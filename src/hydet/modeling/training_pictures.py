"""Pictures that a module draws of its own training."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

__all__: list[str] = []

OnPicture = Callable[[str, Tensor], None]


class DrawsTraining:
    """Lets a module hand over a picture every so many training steps.

    Attributes:
        vis_period: how many; 0 never.
        on_picture: called as ``on_picture(name, picture)`` with a ``(3, H, W)`` uint8 RGB tensor. Set it on the
            instance (``hydet.engine.callbacks.ModelPictures`` does); ``None`` draws nothing.
        training_forwards: losses computed in training mode so far. Whoever continues a run may set it.
    """

    training: bool
    vis_period: int = 0
    on_picture: OnPicture | None = None
    training_forwards: int = 0

    def _picture_is_due(self) -> bool:
        """Counts training steps; true when a picture was asked for and somebody takes it."""
        if not (self.training and self.vis_period > 0):
            return False
        self.training_forwards += 1
        return self.on_picture is not None and self.training_forwards % self.vis_period == 0


def checked_period(vis_period: int) -> int:
    """``vis_period``, or a ``ValueError``."""
    if vis_period < 0:
        raise ValueError(f"vis_period counts steps and cannot be negative, got {vis_period}")
    return vis_period


def beside_ground_truth(image: Tensor, truth: Tensor, boxes: Tensor, *, bgr: bool = False) -> Tensor:
    """An image twice: with its ground truth (left, green), and with other boxes (right, orange).

    Args:
        image: ``(C, H, W)`` in 0-255. The first three channels are shown, or the first if there are less.
        truth: ``(N, 4)`` boxes in pixels of the image, or ``(N, 5)`` rotated ones.
        boxes: ``(M, 4)`` or ``(M, 5)``.
        bgr: whether the channels are blue, green, red instead of red, green, blue.

    Returns:
        ``(3, H, 2 * W)`` uint8.
    """
    image = _as_rgb(image, bgr)
    sides = []
    for found, color in ((truth, "lime"), (boxes, "orange")):
        shown = _drawable(found.detach().cpu())
        sides.append(draw_bounding_boxes(image, shown, colors=color) if shown.shape[0] else image)
    return torch.cat(sides, dim=2)


def labels_beside(
    image: Tensor, truth: Tensor, labels: Tensor, num_classes: int, *, bgr: bool = False
) -> Tensor:
    """An image twice: tinted by its true labels (left), and by others (right).

    Args:
        image: see ``beside_ground_truth``.
        truth: ``(H, W)`` labels; those outside of 0 ... ``num_classes`` - 1 are not tinted.
        labels: likewise.
        num_classes: of labels.
        bgr: see ``beside_ground_truth``.

    Returns:
        ``(3, H, 2 * W)`` uint8.
    """
    image = _as_rgb(image, bgr)
    classes = torch.arange(num_classes)[:, None, None]
    sides = [
        draw_segmentation_masks(image, side.detach().cpu() == classes, alpha=0.6) for side in (truth, labels)
    ]
    return torch.cat(sides, dim=2)


def _as_rgb(image: Tensor, bgr: bool) -> Tensor:
    image = image.detach().cpu()
    image = image[:3] if image.shape[0] >= 3 else image[:1].expand(3, -1, -1)
    return (image.flip(0) if bgr else image).clamp(0, 255).to(torch.uint8)


def _drawable(boxes: Tensor) -> Tensor:
    """Rotated boxes (cx, cy, w, h, degrees counter-clockwise) as ``(N, 8)`` corners; of others, those with an area."""
    if boxes.shape[1] != 5:
        return boxes[(boxes[:, 2:] > boxes[:, :2]).all(dim=1)]
    center, (w, h), angle = boxes[:, :2], (boxes[:, 2:4] / 2).unbind(1), boxes[:, 4].deg2rad()
    along = torch.stack([angle.cos() * w, -angle.sin() * w], dim=1)  # to the right side; y points down
    down = torch.stack([angle.sin() * h, angle.cos() * h], dim=1)
    corners = [center - along - down, center + along - down, center + along + down, center - along + down]
    return torch.cat(corners, dim=1).round()
