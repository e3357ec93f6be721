"""Axis-aligned boxes and pairwise geometry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor

from hydet.structures._pytree import register_tensor_container
from hydet.structures.box_ops import clip_boxes


@register_tensor_container
class Boxes:
    """A set of N axis-aligned boxes.

    Args:
        tensor: ``(N, 4)`` as ``(x1, y1, x2, y2)`` in pixels, or a value that ``torch.as_tensor`` accepts. Stored as
            float32; a float32 tensor is not copied. Any empty input becomes ``(0, 4)``.

    Raises:
        ValueError: if the shape is not ``(N, 4)``.
    """

    box_dim: int = 4
    tensor: Tensor

    def __init__(self, tensor: Tensor | np.ndarray | Sequence[Sequence[float]]) -> None:
        if not isinstance(tensor, Tensor):
            tensor = torch.as_tensor(tensor, dtype=torch.float32, device="cpu")
        elif tensor.dtype != torch.float32:
            tensor = tensor.to(torch.float32)
        if (tensor.ndim != 2 or tensor.shape[-1] != self.box_dim) and tensor.numel() == 0:
            tensor = tensor.reshape(-1, self.box_dim)
        if tensor.ndim != 2 or tensor.shape[-1] != self.box_dim:
            raise ValueError(
                f"{type(self).__name__} takes a tensor of shape (N, {self.box_dim}), got {tuple(tensor.shape)}"
            )
        self.tensor = tensor

    @property
    def device(self) -> torch.device:
        """Device of the tensor."""
        return self.tensor.device

    def clone(self) -> Self:
        """Return a copy that shares no memory with this set."""
        return type(self)(self.tensor.clone())

    def to(self, device: torch.device | str | int, non_blocking: bool = False) -> Self:
        """Return the boxes on ``device``; the dtype stays float32."""
        return type(self)(self.tensor.to(device=device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Return the boxes in page-locked memory, for data loaders."""
        return type(self)(self.tensor.pin_memory())

    def area(self) -> Tensor:
        """Return ``(N,)`` areas in square pixels; negative for a box with exactly one inverted side."""
        x1, y1, x2, y2 = self.tensor.unbind(dim=1)
        return (x2 - x1) * (y2 - y1)

    def clip(self, box_size: tuple[int, int]) -> None:
        """Clip all coordinates to ``[0, w] x [0, h]``; binds a new ``tensor``.

        Views of the old tensor keep their values. NaN stays NaN, because a check would synchronize with the device.
        Filter non-finite boxes beforehand.

        Args:
            box_size: ``(h, w)`` in pixels.
        """
        h, w = box_size
        self.tensor = clip_boxes(self.tensor, h, w)

    def nonempty(self, threshold: float = 0.0) -> Tensor:
        """Return ``(N,)`` bool: True where both sides are longer than ``threshold`` pixels."""
        x1, y1, x2, y2 = self.tensor.unbind(dim=1)
        return (x2 - x1 > threshold) & (y2 - y1 > threshold)

    def inside_box(self, box_size: tuple[int, int], boundary_threshold: float = 0) -> Tensor:
        """Return True for boxes inside the reference box from the origin to ``box_size``.

        Args:
            box_size: ``(h, w)`` in pixels.
            boundary_threshold: pixels by which a box may reach over the border.

        Returns:
            ``(N,)`` bool: near edges ``>= -boundary_threshold``, far edges strictly ``< size + boundary_threshold``.
        """
        h, w = box_size
        x1, y1, x2, y2 = self.tensor.unbind(dim=1)
        near = (x1 >= -boundary_threshold) & (y1 >= -boundary_threshold)
        return near & (x2 < w + boundary_threshold) & (y2 < h + boundary_threshold)

    def get_centers(self) -> Tensor:
        """Return ``(N, 2)`` centers as ``(x, y)``."""
        return (self.tensor[:, :2] + self.tensor[:, 2:]) / 2

    def scale(self, scale_x: float, scale_y: float) -> None:
        """Multiply x by ``scale_x`` and y by ``scale_y``; modifies ``tensor`` in place."""
        self.tensor[:, 0::2] *= scale_x
        self.tensor[:, 1::2] *= scale_y

    def __getitem__(self, item: int | slice | Tensor) -> Self:
        """Select boxes by an int (one box), a slice, a bool mask or integer indices; always a set of boxes."""
        selected = self.tensor[item]
        if selected.ndim == 1:  # an int, or a tensor without dimensions
            selected = selected.unsqueeze(0)
        if selected.ndim != 2:
            raise ValueError(
                f"indexing {type(self).__name__} with {item!r} gives a tensor of {selected.ndim} dimensions"
            )
        return type(self)(selected)

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        """Yield one ``(box_dim,)`` tensor per box."""
        yield from self.tensor

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.tensor})"

    @classmethod
    def cat(cls, boxes_list: Sequence[Self]) -> Self:
        """Concatenate sets of boxes on one device; an empty list gives an empty set.

        Raises:
            TypeError: if an element has another class.
        """
        wrong = next((type(b).__name__ for b in boxes_list if not isinstance(b, cls)), None)
        if wrong is not None:
            raise TypeError(f"{cls.__name__}.cat takes a sequence of {cls.__name__}, got a {wrong} in it")
        if len(boxes_list) == 0:
            return cls(torch.empty(0))
        return cls(torch.cat([b.tensor for b in boxes_list], dim=0))


def box_tensor(boxes: Boxes | Tensor) -> Tensor:
    """Return the tensor of :class:`Boxes`, or a tensor of boxes itself."""
    return boxes.tensor if isinstance(boxes, Boxes) else boxes


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def pairwise_intersection(boxes1: Boxes | Tensor, boxes2: Boxes | Tensor) -> Tensor:
    """Return the intersection area of each pair of boxes of two sets.

    Args:
        boxes1: N boxes, as :class:`Boxes` or an ``(N, 4)`` xyxy tensor.
        boxes2: M boxes, as :class:`Boxes` or an ``(M, 4)`` xyxy tensor.

    Returns:
        ``(N, M)`` areas, never negative.
    """
    a, b = box_tensor(boxes1), box_tensor(boxes2)
    width = torch.minimum(a[:, None, 2], b[:, 2]) - torch.maximum(a[:, None, 0], b[:, 0])  # (N, M)
    height = torch.minimum(a[:, None, 3], b[:, 3]) - torch.maximum(a[:, None, 1], b[:, 1])
    return width.clamp(min=0) * height.clamp(min=0)


def pairwise_iou(boxes1: Boxes | Tensor, boxes2: Boxes | Tensor) -> Tensor:
    """Return the intersection over union of each pair of boxes of two sets.

    Args:
        boxes1: N boxes, as :class:`Boxes` or an ``(N, 4)`` xyxy tensor.
        boxes2: M boxes, as :class:`Boxes` or an ``(M, 4)`` xyxy tensor.

    Returns:
        ``(N, M)`` in [0, 1]; 0 where two boxes do not overlap, even if both are empty.
    """
    a, b = box_tensor(boxes1), box_tensor(boxes2)
    intersection = pairwise_intersection(a, b)
    union = _areas(a)[:, None] + _areas(b) - intersection
    return _ratio(intersection, union)


def pairwise_ioa(boxes1: Boxes | Tensor, boxes2: Boxes | Tensor) -> Tensor:
    """Return the intersection over the area of the second box, for each pair of boxes of two sets.

    Args:
        boxes1: N boxes, as :class:`Boxes` or an ``(N, 4)`` xyxy tensor.
        boxes2: M boxes, as :class:`Boxes` or an ``(M, 4)`` xyxy tensor.

    Returns:
        ``(N, M)`` in [0, 1]; 0 where two boxes do not overlap.
    """
    a, b = box_tensor(boxes1), box_tensor(boxes2)
    intersection = pairwise_intersection(a, b)
    return _ratio(intersection, _areas(b).expand_as(intersection))


def pairwise_point_box_distance(points: Tensor, boxes: Boxes | Tensor) -> Tensor:
    """Return signed distances from each point to the four sides of each box; all four are positive inside.

    Args:
        points: ``(N, 2)`` as ``(x, y)`` in pixels.
        boxes: M boxes, as :class:`Boxes` or an ``(M, 4)`` xyxy tensor.

    Returns:
        ``(N, M, 4)`` pixels to the left, top, right and bottom side.
    """
    x, y = points[:, None].unbind(dim=2)  # (N, 1)
    x1, y1, x2, y2 = box_tensor(boxes).unbind(dim=1)  # (M,)
    return torch.stack([x - x1, y - y1, x2 - x, y2 - y], dim=2)


def matched_pairwise_iou(boxes1: Boxes | Tensor, boxes2: Boxes | Tensor) -> Tensor:
    """Return the intersection over union of each box of one set and the box of the same index in the other.

    Args:
        boxes1: N boxes, as :class:`Boxes` or an ``(N, 4)`` xyxy tensor.
        boxes2: N boxes, as :class:`Boxes` or an ``(N, 4)`` xyxy tensor.

    Returns:
        ``(N,)`` in [0, 1]; 0, not NaN, where both boxes are degenerate.

    Raises:
        ValueError: if the sets differ in size.
    """
    a, b = box_tensor(boxes1), box_tensor(boxes2)
    if a.shape[0] != b.shape[0]:
        raise ValueError(f"matched_pairwise_iou needs equally many boxes, got {a.shape[0]} and {b.shape[0]}")
    sides = torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])
    intersection = sides.clamp(min=0).prod(dim=1)
    return _ratio(intersection, _areas(a) + _areas(b) - intersection)


def _ratio(intersection: Tensor, area: Tensor) -> Tensor:
    """Divide, with 0 where the intersection is empty; neither value nor gradient is NaN."""
    overlaps = intersection > 0
    return torch.where(overlaps, intersection / torch.where(overlaps, area, 1.0), 0.0)
