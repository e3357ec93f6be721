"""Random crops, of a variable size, or of a fixed size with padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hydet.data.transforms.geometric import GeometricTransform, Params, Size, draw_uniform, image_size_of

__all__ = ["FixedSizeCrop", "RandomCrop"]


class _Cropping(GeometricTransform):
    """Base class of transforms whose ``make_params`` returns the window: ``top``, ``left`` and ``size``.

    Parts of the window beyond the bottom and the right border of the image are padded.
    """

    pad_value: float = 128.0
    pad_label: int = 255

    def output_size(self, size: Size, params: Params) -> Size:
        height, width = params["size"]
        return height, width

    def move_boxes(self, boxes: Tensor, size: Size, params: Params) -> Tensor:
        left, top = params["left"], params["top"]
        return boxes - boxes.new_tensor([left, top, left, top])

    def move_rotated_boxes(self, boxes: Tensor, size: Size, params: Params) -> Tensor:
        return boxes - boxes.new_tensor([params["left"], params["top"], 0, 0, 0])

    def move_points(self, points: Tensor, size: Size, params: Params) -> Tensor:
        return points - points.new_tensor([params["left"], params["top"]])

    def move_mask(self, mask: Tensor, params: Params) -> Tensor:
        # Padding belongs to no object, and its semantic label is ignored.
        return _crop(mask, params, self.pad_label if mask.ndim == 2 else 0)

    def move_image(self, image: Tensor, params: Params) -> Tensor:
        return _crop(image.as_subclass(Tensor), params, self.pad_value)


def _crop(pixels: Tensor, params: Params, fill: float) -> Tensor:
    top, left, (height, width) = params["top"], params["left"], params["size"]
    window = pixels[..., top : top + height, left : left + width]
    missing_rows, missing_columns = height - window.shape[-2], width - window.shape[-1]
    if missing_rows > 0 or missing_columns > 0:
        window = F.pad(window, (0, missing_columns, 0, missing_rows), value=fill)
    return window


class RandomCrop(_Cropping):
    """Cuts out a window at a random position.

    Args:
        size: (height, width) of the window, in the units of ``mode``.
        mode: ``"relative"`` takes fractions of the image; ``"relative_range"`` draws fractions from these up to 1;
            ``"absolute"`` takes pixels, limited to the image; ``"absolute_range"`` draws each side from the first to
            the second number of pixels, limited to the image.

    Raises:
        ValueError: if the mode is unknown, or ``size`` does not fit it.
    """

    MODES = ("relative", "relative_range", "absolute", "absolute_range")

    def __init__(self, *, size: Sequence[float], mode: str = "relative_range") -> None:
        super().__init__()
        if mode not in self.MODES:
            raise ValueError(f"RandomCrop: mode must be one of {list(self.MODES)}, got {mode!r}")
        if len(size) != 2 or min(size) <= 0:
            raise ValueError(f"RandomCrop: size must be two positive numbers, got {size}")
        if mode.startswith("relative") and max(size) > 1:
            raise ValueError(f"RandomCrop: relative sizes must lie in (0, 1], got {size}")
        if mode == "absolute_range" and size[0] > size[1]:
            raise ValueError(f"RandomCrop: a range is [smallest, largest], got {size}")
        self.size = (size[0], size[1])
        self.mode = mode

    def make_params(self, flat_inputs: list[Any]) -> Params:
        """Draw the size of the window and its position."""
        height, width = image_size_of(flat_inputs)
        window_height, window_width = (max(side, 1) for side in self._draw_size(height, width))
        top = int(torch.randint(height - window_height + 1, ()))
        left = int(torch.randint(width - window_width + 1, ()))
        return {"top": top, "left": left, "size": (window_height, window_width)}

    def _draw_size(self, height: int, width: int) -> Size:
        first, second = self.size
        if self.mode == "relative":
            return int(height * first + 0.5), int(width * second + 0.5)
        if self.mode == "relative_range":
            return (
                int(height * draw_uniform(first, 1) + 0.5),
                int(width * draw_uniform(second, 1) + 0.5),
            )
        if self.mode == "absolute":
            return min(int(first), height), min(int(second), width)
        return _draw_side(int(first), int(second), height), _draw_side(int(first), int(second), width)


def _draw_side(low: int, high: int, limit: int) -> int:
    return int(torch.randint(min(limit, low), min(limit, high) + 1, ()))


class FixedSizeCrop(_Cropping):
    """Cuts out a window of a fixed size at a random position, and pads smaller images on the right and at the bottom.

    One random number positions the window along both axes.

    Args:
        size: (height, width) of the result in pixels.
        pad: pad images that are smaller than ``size``.
        pad_value: gray level of the padding.
        pad_label: semantic label of the padding.

    Raises:
        ValueError: if ``size`` is not two positive numbers.
    """

    def __init__(
        self, *, size: Sequence[int], pad: bool = True, pad_value: float = 128.0, pad_label: int = 255
    ) -> None:
        super().__init__()
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f"FixedSizeCrop: size must be (height, width), both positive, got {size}")
        self.size = (int(size[0]), int(size[1]))
        self.pad = pad
        self.pad_value = pad_value
        self.pad_label = pad_label

    def make_params(self, flat_inputs: list[Any]) -> Params:
        """Draw the position of the window."""
        height, width = image_size_of(flat_inputs)
        window_height, window_width = self.size
        # One number for both axes, as in the reference: the window lies on a diagonal of the image.
        position = draw_uniform(0, 1)
        top = int(position * max(height - window_height, 0) + 0.5)
        left = int(position * max(width - window_width, 0) + 0.5)
        size = self.size if self.pad else (min(height, window_height), min(width, window_width))
        return {"top": top, "left": left, "size": size}
