"""Transforms that resize to a fixed size, to one of several sizes, or by a random factor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as tv_functional

from hydet.data.transforms.geometric import GeometricTransform, Params, Size, draw_uniform, image_size_of
from hydet.structures import RotatedBoxes, resize_nearest, resize_with_pillow, shortest_edge_size

__all__ = ["Resize", "ResizeShortestEdge", "ScaleJitter"]


class _Resizing(GeometricTransform):
    """Base class of transforms whose ``make_params`` returns ``size``, the new (height, width)."""

    exact: bool = True

    def output_size(self, size: Size, params: Params) -> Size:
        new_height, new_width = params["size"]
        return new_height, new_width

    def move_boxes(self, boxes: Tensor, size: Size, params: Params) -> Tensor:
        scale_x, scale_y = _scales(size, params["size"])
        return boxes * boxes.new_tensor([scale_x, scale_y, scale_x, scale_y])

    def move_rotated_boxes(self, boxes: Tensor, size: Size, params: Params) -> Tensor:
        rotated = RotatedBoxes(boxes.clone())
        rotated.scale(*_scales(size, params["size"]))
        return rotated.tensor

    def move_points(self, points: Tensor, size: Size, params: Params) -> Tensor:
        return points * points.new_tensor(_scales(size, params["size"]))

    def move_mask(self, mask: Tensor, params: Params) -> Tensor:
        return resize_nearest(mask, params["size"])

    def move_image(self, image: Tensor, params: Params) -> Tensor:
        size = params["size"]
        if tuple(image.shape[-2:]) == tuple(size):
            return image
        is_8bit_rgb = (
            isinstance(image, tv_tensors.Image) and image.dtype == torch.uint8 and image.shape[-3] == 3
        )
        if self.exact and is_8bit_rgb:
            return resize_with_pillow(image.as_subclass(Tensor), size)
        resized: Tensor = tv_functional.resize(image, list(size), antialias=True)
        return resized


def _scales(old: Size, new: Size) -> tuple[float, float]:
    """Return the factors of x and y between two sizes."""
    return new[1] / old[1], new[0] / old[0]


class ResizeShortestEdge(_Resizing):
    """Resizes the shorter side of an image to one of several lengths.

    Args:
        short: length or lengths of the shorter side in pixels.
        max_size: largest length of the longer side in pixels; None for no limit.
        sampling: ``"choice"`` draws one of ``short``; ``"range"`` draws any length from the first to the second.
        exact: resize 8-bit images with Pillow, as published weights expect. False uses torch, which is about three
            times as fast; a few pixels in a hundred then differ by one gray level.

    Raises:
        ValueError: if ``short`` is empty or not positive, or a range does not have two ends in order.
    """

    def __init__(
        self,
        *,
        short: int | Sequence[int],
        max_size: int | None = None,
        sampling: Literal["choice", "range"] = "choice",
        exact: bool = True,
    ) -> None:
        super().__init__()
        lengths = (short,) if isinstance(short, int) else tuple(short)
        if not lengths or min(lengths) < 1 or (max_size is not None and max_size < 1):
            raise ValueError(
                f"ResizeShortestEdge: lengths must be positive, got short={short}, max_size={max_size}"
            )
        if sampling not in ("choice", "range"):
            raise ValueError(f'ResizeShortestEdge: sampling must be "choice" or "range", got {sampling!r}')
        if sampling == "range" and (len(lengths) not in (1, 2) or lengths[0] > lengths[-1]):
            raise ValueError(f"ResizeShortestEdge: a range is [smallest, largest], got short={short}")
        self.short = lengths
        self.max_size = max_size
        self.sampling = sampling
        self.exact = exact

    def make_params(self, flat_inputs: list[Any]) -> Params:
        """Draw the length of the shorter side."""
        if len(self.short) == 1:
            short = self.short[0]
        elif self.sampling == "range":
            short = int(torch.randint(self.short[0], self.short[1] + 1, ()))
        else:
            short = self.short[int(torch.randint(len(self.short), ()))]
        return {"size": shortest_edge_size(*image_size_of(flat_inputs), short, self.max_size)}


class Resize(_Resizing):
    """Resizes to a fixed size; the aspect ratio may change.

    Args:
        size: (height, width) of the result in pixels.
        exact: resize 8-bit images with Pillow; see :class:`ResizeShortestEdge`.

    Raises:
        ValueError: if ``size`` is not two positive numbers.
    """

    def __init__(self, *, size: Sequence[int], exact: bool = True) -> None:
        super().__init__()
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f"Resize: size must be (height, width), both positive, got {size}")
        self.size = (int(size[0]), int(size[1]))
        self.exact = exact

    def make_params(self, flat_inputs: list[Any]) -> Params:
        """Return the fixed size."""
        return {"size": self.size}


class ScaleJitter(_Resizing):
    """Resizes by a random factor, with the aspect ratio unchanged. With ``FixedSizeCrop``, this is large-scale jitter.

    Args:
        size: (height, width) in pixels; at a factor of 1, the image is as large as fits into it.
        min_scale: smallest factor.
        max_scale: largest factor.
        exact: resize 8-bit images with Pillow; see :class:`ResizeShortestEdge`.

    Raises:
        ValueError: if ``size`` is not two positive numbers, or the factors are not positive and in order.

    Source: Ghiasi et al. 2021 (arXiv:2012.07177), section 3.
    """

    def __init__(
        self, *, size: Sequence[int], min_scale: float = 0.1, max_scale: float = 2.0, exact: bool = True
    ) -> None:
        super().__init__()
        if len(size) != 2 or min(size) < 1 or not 0 < min_scale <= max_scale:
            raise ValueError(
                "ScaleJitter: size must be (height, width), both positive, with 0 < min_scale <= max_scale, "
                f"got {size}, {min_scale} and {max_scale}"
            )
        self.size = (int(size[0]), int(size[1]))
        self.min_scale = min_scale
        self.max_scale = max_scale
        self.exact = exact

    def make_params(self, flat_inputs: list[Any]) -> Params:
        """Draw the factor."""
        height, width = image_size_of(flat_inputs)
        factor = draw_uniform(self.min_scale, self.max_scale)
        scale = min(self.size[0] * factor / height, self.size[1] * factor / width)
        return {"size": (max(round(height * scale), 1), max(round(width * scale), 1))}
