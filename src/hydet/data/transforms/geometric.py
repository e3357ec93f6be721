"""Base class of transforms that move pixels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

__all__ = ["GeometricTransform", "Params", "Size", "draw_uniform", "image_size_of"]

Size = tuple[int, int]  # (height, width) in pixels
Params = dict[str, Any]  # random choices of one call, which torchvision hands to `transform` for each input


class GeometricTransform(v2.Transform, ABC):
    """Moves the pixels of images and masks, and with them boxes and points.

    Subclasses draw their random choices in ``make_params`` and define one method per kind of input. Nothing is clamped
    to the image: :class:`hydet.data.InputMapper` has to see which boxes a crop has cut.
    """

    def transform(self, inpt: Any, params: Params) -> Any:
        """Transform an input with the method for its kind.

        Raises:
            TypeError: if boxes are in another format than XYXY or CXCYWHR.
        """
        if isinstance(inpt, tv_tensors.BoundingBoxes):
            size = inpt.canvas_size
            return tv_tensors.BoundingBoxes(
                self._move_boxes_of(inpt, params),
                format=inpt.format,
                canvas_size=self.output_size(size, params),
                clamping_mode=inpt.clamping_mode,
            )
        if isinstance(inpt, tv_tensors.KeyPoints):
            size = inpt.canvas_size
            points = self.move_points(inpt.as_subclass(Tensor), size, params)
            return tv_tensors.KeyPoints(points, canvas_size=self.output_size(size, params))
        if isinstance(inpt, tv_tensors.Mask):
            return tv_tensors.wrap(self.move_mask(inpt.as_subclass(Tensor), params), like=inpt)
        return tv_tensors.wrap(self.move_image(inpt, params), like=inpt)

    def _move_boxes_of(self, boxes: tv_tensors.BoundingBoxes, params: Params) -> Tensor:
        plain = boxes.as_subclass(Tensor)
        if boxes.format == tv_tensors.BoundingBoxFormat.XYXY:
            return self.move_boxes(plain, boxes.canvas_size, params)
        if boxes.format == tv_tensors.BoundingBoxFormat.CXCYWHR:
            return self.move_rotated_boxes(plain, boxes.canvas_size, params)
        raise TypeError(
            f"{type(self).__name__}: boxes must have the format XYXY or CXCYWHR, got {boxes.format}"
        )

    @abstractmethod
    def output_size(self, size: Size, params: Params) -> Size:
        """Return the size of the output for an input of ``size``."""

    @abstractmethod
    def move_boxes(self, boxes: Tensor, size: Size, params: Params) -> Tensor:
        """Move ``(N, 4)`` xyxy boxes of an image of ``size``."""

    @abstractmethod
    def move_rotated_boxes(self, boxes: Tensor, size: Size, params: Params) -> Tensor:
        """Move ``(N, 5)`` boxes of an image of ``size``, as (cx, cy, w, h, degrees counterclockwise)."""

    @abstractmethod
    def move_points(self, points: Tensor, size: Size, params: Params) -> Tensor:
        """Move ``(..., 2)`` points as (x, y) of an image of ``size``."""

    @abstractmethod
    def move_mask(self, mask: Tensor, params: Params) -> Tensor:
        """Move ``(H, W)`` semantic labels, or the ``(N, H, W)`` masks of N objects."""

    @abstractmethod
    def move_image(self, image: Tensor, params: Params) -> Tensor:
        """Move an image ``(C, H, W)``, or a video with leading axes; ``image`` is the original ``tv_tensor``."""


def image_size_of(flat_inputs: Sequence[object]) -> Size:
    """Return the ``(height, width)`` of the inputs of a transform.

    Raises:
        TypeError: if none of the inputs has a size.
    """
    for value in flat_inputs:
        if isinstance(value, tv_tensors.Image | tv_tensors.Mask | tv_tensors.Video):
            return int(value.shape[-2]), int(value.shape[-1])
        if isinstance(value, tv_tensors.BoundingBoxes | tv_tensors.KeyPoints):
            height, width = value.canvas_size
            return height, width
    for value in flat_inputs:
        if isinstance(value, Tensor) and value.ndim >= 3:
            return int(value.shape[-2]), int(value.shape[-1])
    raise TypeError("a transform needs an image, a mask, boxes or keypoints among its inputs")


def draw_uniform(low: float, high: float) -> float:
    """Draw a number from [low, high) with torch's global generator."""
    return low + (high - low) * float(torch.rand(()))
