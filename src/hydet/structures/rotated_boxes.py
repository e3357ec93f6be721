"""Boxes rotated by any angle."""

from __future__ import annotations

import torch
from torch import Tensor

from hydet.kernels import box_iou_rotated
from hydet.structures._pytree import register_tensor_container
from hydet.structures.boxes import Boxes


@register_tensor_container
class RotatedBoxes(Boxes):
    """A set of N rotated boxes.

    Args:
        tensor: ``(N, 5)`` as ``(cx, cy, w, h, angle)``: centre and sides in pixels, and the angle in degrees by
            which the box is turned counter-clockwise on screen (y points down). Angles are the same modulo 360.

    Raises:
        ValueError: if the shape is not ``(N, 5)``.
    """

    box_dim: int = 5
    tensor: Tensor

    def area(self) -> Tensor:
        """``(N,)`` areas in square pixels."""
        return self.tensor[:, 2] * self.tensor[:, 3]

    def normalize_angles(self) -> None:
        """Bring every angle into [-180, 180); rebinds ``tensor``."""
        angle = (self.tensor[:, 4:] + 180.0) % 360.0 - 180.0
        self.tensor = torch.cat([self.tensor[:, :4], angle], dim=1)

    def clip(self, box_size: tuple[int, int], clip_angle_threshold: float = 1.0) -> None:
        """Normalise angles, then clip the boxes that are nearly upright; rebinds ``tensor``.

        Clipping a turned box to the image would not leave a box, so those stay as they are. Of a clipped box
        the angle stays, and no side grows.

        Args:
            box_size: ``(h, w)`` in pixels.
            clip_angle_threshold: in degrees; boxes with ``|angle|`` up to this are clipped as if upright. A box
                at 180 degrees does not count as upright.
        """
        h, w = box_size
        self.normalize_angles()
        cx, cy, width, height, angle = self.tensor.unbind(dim=1)
        x1, x2 = (cx - width / 2).clamp(0, w), (cx + width / 2).clamp(0, w)
        y1, y2 = (cy - height / 2).clamp(0, h), (cy + height / 2).clamp(0, h)
        clipped = torch.stack(
            [
                (x1 + x2) / 2,
                (y1 + y2) / 2,
                torch.minimum(width, x2 - x1),
                torch.minimum(height, y2 - y1),
                angle,
            ],
            dim=1,
        )
        upright = (angle.abs() <= clip_angle_threshold)[:, None]
        self.tensor = torch.where(upright, clipped, self.tensor)

    def nonempty(self, threshold: float = 0.0) -> Tensor:
        """``(N,)`` bool: both sides strictly longer than ``threshold`` pixels."""
        return (self.tensor[:, 2] > threshold) & (self.tensor[:, 3] > threshold)

    def inside_box(self, box_size: tuple[int, int], boundary_threshold: float = 0) -> Tensor:
        """Which boxes lie wholly inside the upright box that reaches from the origin to ``box_size``.

        Args:
            box_size: ``(h, w)`` in pixels.
            boundary_threshold: by how many pixels a corner may reach over the border.

        Returns:
            ``(N,)`` bool: near corners ``>= -boundary_threshold``, far ones strictly ``< size + boundary_threshold``.
        """
        return Boxes(self._enclosing()).inside_box(box_size, boundary_threshold)

    def _enclosing(self) -> Tensor:
        """``(N, 4)`` smallest upright xyxy boxes around the boxes."""
        centers, sides, angle = self.tensor[:, :2], self.tensor[:, 2:4], self.tensor[:, 4:].deg2rad()
        reach = (angle.cos().abs() * sides + angle.sin().abs() * sides.flip(1)) / 2
        return torch.cat([centers - reach, centers + reach], dim=1)

    def get_centers(self) -> Tensor:
        """``(N, 2)`` centres as ``(x, y)``."""
        return self.tensor[:, :2]

    def scale(self, scale_x: float, scale_y: float) -> None:
        """Stretch the image that the boxes are on, in place: whoever shares the tensor sees it.

        Stretched unevenly, a rectangle becomes a parallelogram. The result is the rectangle whose width and
        height are the stretched sides and whose angle is that of the stretched height.
        """
        angle = self.tensor[:, 4].deg2rad()
        sin, cos = angle.sin(), angle.cos()
        self.tensor[:, 0] *= scale_x
        self.tensor[:, 1] *= scale_y
        self.tensor[:, 2] *= torch.hypot(scale_x * cos, scale_y * sin)
        self.tensor[:, 3] *= torch.hypot(scale_x * sin, scale_y * cos)
        self.tensor[:, 4] = torch.atan2(scale_x * sin, scale_y * cos).rad2deg()


def pairwise_iou_rotated(boxes1: RotatedBoxes | Tensor, boxes2: RotatedBoxes | Tensor) -> Tensor:
    """Intersection over union of each pair of rotated boxes of two sets.

    Boxes that coincide up to rounding, or are thinner than a tenth of a
    pixel, get their true overlap too.

    Args:
        boxes1: N boxes, as :class:`RotatedBoxes` or an ``(N, 5)`` tensor.
        boxes2: M boxes, likewise.

    Returns:
        ``(N, M)`` float32 in [0, 1], without gradient.
    """
    a, b = (boxes.tensor if isinstance(boxes, Boxes) else boxes for boxes in (boxes1, boxes2))
    return box_iou_rotated(a, b)
