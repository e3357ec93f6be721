"""Random flips.

Points are mirrored like the edges of boxes, ``x -> W - x``. torchvision maps points ``x -> W - 1 - x`` instead, one pixel
away from the boxes and masks around them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hydet.data.transforms.geometric import GeometricTransform, Params, Size

__all__ = ["RandomHorizontalFlip", "RandomVerticalFlip"]


class _RandomFlip(GeometricTransform):
    """Base class of flips.

    Args:
        p: probability of the flip.

    Raises:
        ValueError: if ``p`` is not in [0, 1].
    """

    coordinate: int  # the mirrored coordinate: 0 for x, 1 for y

    def __init__(self, *, p: float = 0.5) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"{type(self).__name__}: p must lie in [0, 1], got {p}")
        self.p = p

    def make_params(self, flat_inputs: list[Any]) -> Params:
        """Draw the decision to flip."""
        return {"flip": bool(torch.rand(()) < self.p)}

    def transform(self, inpt: Any, params: Params) -> Any:
        """Flip an input, or return it unchanged, as drawn."""
        return super().transform(inpt, params) if params["flip"] else inpt

    def output_size(self, size: Size, params: Params) -> Size:
        return size

    def move_boxes(self, boxes: Tensor, size: Size, params: Params) -> Tensor:
        low, high = self.coordinate, self.coordinate + 2
        flipped = boxes.clone()
        flipped[:, [low, high]] = self._length(size) - boxes[:, [high, low]]
        return flipped

    def move_rotated_boxes(self, boxes: Tensor, size: Size, params: Params) -> Tensor:
        flipped = boxes.clone()
        flipped[:, self.coordinate] = self._length(size) - boxes[:, self.coordinate]
        flipped[:, 4] = -boxes[:, 4]  # a mirror reverses the direction of rotation
        return flipped

    def move_points(self, points: Tensor, size: Size, params: Params) -> Tensor:
        flipped = points.clone()
        flipped[..., self.coordinate] = self._length(size) - points[..., self.coordinate]
        return flipped

    def move_mask(self, mask: Tensor, params: Params) -> Tensor:
        return self.move_image(mask, params)

    def move_image(self, image: Tensor, params: Params) -> Tensor:
        return image.as_subclass(Tensor).flip(-1 - self.coordinate)

    def _length(self, size: Size) -> int:
        return size[1 - self.coordinate]


class RandomHorizontalFlip(_RandomFlip):
    """Mirrors left and right with probability ``p``.

    Points and boxes map ``x -> W - x``, and the angles of rotated boxes change sign. ``InputMapper`` then swaps paired
    keypoints such as left and right eye.
    """

    coordinate = 0


class RandomVerticalFlip(_RandomFlip):
    """Mirrors top and bottom with probability ``p``.

    Points and boxes map ``y -> H - y``, and the angles of rotated boxes change sign. ``InputMapper`` then swaps paired
    keypoints such as left and right eye.
    """

    coordinate = 1
