"""Rotated boxes and their pairwise IoU."""

from __future__ import annotations

import torch
from torch import Tensor

from hydet.kernels import box_iou_rotated
from hydet.structures._pytree import register_tensor_container
from hydet.structures.box_ops import clip_rotated_boxes, enclosing_boxes, wrap_angles
from hydet.structures.boxes import Boxes, box_tensor


@register_tensor_container
class RotatedBoxes(Boxes):
    """A set of N rotated boxes.

    Args:
        tensor: ``(N, 5)`` as ``(cx, cy, w, h, angle)``: center and sides in pixels, and the rotation in degrees
            counter-clockwise on screen (y points down). Angles are equal modulo 360.

    Raises:
        ValueError: if the shape is not ``(N, 5)``.
    """

    box_dim: int = 5
    tensor: Tensor

    def area(self) -> Tensor:
        """Return ``(N,)`` areas in square pixels."""
        return self.tensor[:, 2] * self.tensor[:, 3]

    def normalize_angles(self) -> None:
        """Wrap all angles to [-180, 180); binds a new ``tensor``."""
        self.tensor = torch.cat([self.tensor[:, :4], wrap_angles(self.tensor[:, 4:])], dim=1)

    def clip(self, box_size: tuple[int, int], clip_angle_threshold: float = 1.0) -> None:
        """Wrap angles, then clip the boxes that are nearly upright; binds a new ``tensor``.

        A rotated box clipped to the image is no longer a rectangle, so other boxes do not change. A clipped box keeps
        its angle, and no side grows.

        Args:
            box_size: ``(h, w)`` in pixels.
            clip_angle_threshold: degrees; boxes with ``|angle|`` up to this are clipped as if upright. A box at
                180 degrees is not upright.
        """
        h, w = box_size
        self.tensor = clip_rotated_boxes(self.tensor, h, w, clip_angle_threshold)

    def nonempty(self, threshold: float = 0.0) -> Tensor:
        """Return ``(N,)`` bool: True where both sides are longer than ``threshold`` pixels."""
        return (self.tensor[:, 2] > threshold) & (self.tensor[:, 3] > threshold)

    def inside_box(self, box_size: tuple[int, int], boundary_threshold: float = 0) -> Tensor:
        """Return True for boxes entirely inside the upright box from the origin to ``box_size``.

        Args:
            box_size: ``(h, w)`` in pixels.
            boundary_threshold: pixels by which a corner may reach over the border.

        Returns:
            ``(N,)`` bool: True if the enclosing upright box has its near edges ``>= -boundary_threshold`` and its far
            edges strictly ``< size + boundary_threshold``.
        """
        return Boxes(enclosing_boxes(self.tensor)).inside_box(box_size, boundary_threshold)

    def get_centers(self) -> Tensor:
        """Return ``(N, 2)`` centers as ``(x, y)``."""
        return self.tensor[:, :2]

    def scale(self, scale_x: float, scale_y: float) -> None:
        """Scale x by ``scale_x`` and y by ``scale_y``; modifies ``tensor`` in place.

        Under different factors a rectangle becomes a parallelogram. The result is the rectangle with the lengths of the
        scaled sides and the direction of the scaled height.
        """
        angle = self.tensor[:, 4].deg2rad()
        sin, cos = angle.sin(), angle.cos()
        self.tensor[:, 0] *= scale_x
        self.tensor[:, 1] *= scale_y
        self.tensor[:, 2] *= torch.hypot(scale_x * cos, scale_y * sin)
        self.tensor[:, 3] *= torch.hypot(scale_x * sin, scale_y * cos)
        self.tensor[:, 4] = torch.atan2(scale_x * sin, scale_y * cos).rad2deg()


def pairwise_iou_rotated(boxes1: RotatedBoxes | Tensor, boxes2: RotatedBoxes | Tensor) -> Tensor:
    """Return the intersection over union of each pair of rotated boxes of two sets.

    The result is also exact for boxes that coincide up to rounding or are thinner than a tenth of a pixel.

    Args:
        boxes1: N boxes, as :class:`RotatedBoxes` or an ``(N, 5)`` tensor.
        boxes2: M boxes, as :class:`RotatedBoxes` or an ``(M, 5)`` tensor.

    Returns:
        ``(N, M)`` float32 in [0, 1], without gradient.
    """
    return box_iou_rotated(box_tensor(boxes1), box_tensor(boxes2))
