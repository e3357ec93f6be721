"""Winograd's convolution in PyTorch: transforms on slices of the feature map, and one batched matrix product.

Feature maps are cut into strips of tiles that stay in the cache of a processor. All tensors are channels last, so that
every operation runs along contiguous channels.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .transforms import (
    OUTPUTS,
    POINTS,
    TAPS,
    transform_gradient,
    transform_input,
    transform_output,
    transform_taps,
    untransform_taps,
)

__all__ = [
    "conv2d_torch",
    "empty_output",
    "forward_torch",
    "transform_weight_torch",
    "weight_gradient_torch",
]

# Tiles times channels per strip. Values and products of a strip take 36 numbers per tile and channel: 6 MB each.
STRIP_SIZE = 40_000
# Each strip reads the whole weight, which takes too long for fewer tiles. Decides from 270 channels on.
MIN_STRIP_TILES = 150
# Bytes per tensor of working memory. glibc maps more than 32 MiB apart from its heap, where memory that stays would leave
# gaps. Pages that are never used take no memory.
LEAST_ALLOCATION = 33 << 20


class _Strip(NamedTuple):
    """Consecutive rows of tiles: of several whole images, or of a part of one.

    Args:
        images: range of images.
        first: first row of tiles.
        rows: number of rows of tiles.
    """

    images: slice
    first: int
    rows: int


class _Tiling:
    """The partition of a batch of feature maps into strips, and working memory for one of them.

    There are as few tensors as possible, because they must fit into the cache. Threads divide an operation along its
    first axis, and cores may have separate caches, so a tensor holds either rows of pixels (``"pixels"``) or points
    (``"values"``, ``"products"``). Only ``"half"``, between the transforms of the two axes, changes hands.

    Args:
        shape: (N, C, H, W) of the input.
        num_outputs: channels of the output.
        like: tensor that gives device and dtype. The transforms of 16-bit numbers are computed in float32.
    """

    def __init__(self, shape: torch.Size, num_outputs: int, like: Tensor) -> None:
        self.dtype = _precision(like.dtype)
        self.num_images, self.channels, self.height, self.width = shape
        self.num_outputs = num_outputs
        self.rows, self.columns = -(-self.height // OUTPUTS), -(-self.width // OUTPUTS)
        num_tiles = max(MIN_STRIP_TILES, STRIP_SIZE // max(self.channels, num_outputs))
        self.strip_images = max(1, min(self.num_images, num_tiles // (self.rows * self.columns)))
        self.strip_rows = (
            self.rows if self.strip_images > 1 else min(self.rows, max(1, num_tiles // self.columns))
        )
        self.device = like.device
        self._memory = _memory_of_thread() if self.device.type == "cpu" else {}

    def __iter__(self) -> Iterator[_Strip]:
        for image in range(0, self.num_images, self.strip_images):
            images = slice(image, min(image + self.strip_images, self.num_images))
            for row in range(0, self.rows, self.strip_rows):
                yield _Strip(images, row, min(self.strip_rows, self.rows - row))

    def memory(self, name: str, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Return uninitialized working memory; a later call with the same name and precision, the same memory."""
        dtype = dtype or self.dtype
        size, key = math.prod(shape), (name, dtype)
        memory = self._memory.get(key)
        if memory is None or memory.numel() < size:
            with torch.inference_mode(False):  # which forbids later changes outside of it
                capacity = (
                    max(size, LEAST_ALLOCATION // dtype.itemsize) if self.device.type == "cpu" else size
                )
                memory = self._memory[key] = torch.empty(capacity, dtype=dtype, device=self.device)
        return memory[:size].view(shape)

    def transformed(self, weight: Tensor) -> Tensor:
        """Map ``(K, C, 3, 3)`` weights to ``(36, C, K)`` values, in working memory."""
        # "values" is not in use before the first strip.
        taps = self.memory("values", TAPS, TAPS, self.channels, self.num_outputs)
        out = self.memory("weight", POINTS * POINTS, self.channels, self.num_outputs)
        return _transform_weight(weight, taps, out)

    def padded(self, x: Tensor, strip: _Strip, margin: int) -> Tensor:
        """Return the rows of a strip with zeros around the feature map.

        Args:
            x: ``(N, H, W, C)`` feature maps.
            strip: the strip.
            margin: rows and columns around the tiles of the strip.

        Returns:
            ``(n, 4 * rows + 2 * margin, 4 * columns + 2 * margin, C)``.
        """
        images = x[strip.images]
        height, width = (OUTPUTS * n + 2 * margin for n in (strip.rows, self.columns))
        padded = self.memory("pixels", images.shape[0], height, width, x.shape[3])
        start = OUTPUTS * strip.first - margin
        top, bottom = max(0, -start), min(height, self.height - start)
        padded[:, :top] = 0
        padded[:, bottom:] = 0
        padded[:, top:bottom, :margin] = 0
        padded[:, top:bottom, margin + self.width :] = 0
        padded[:, top:bottom, margin : margin + self.width] = images[:, start + top : start + bottom]
        return padded

    def values(self, x: Tensor, strip: _Strip) -> Tensor:
        """Return the values of the input of a strip at the points: ``(POINTS, POINTS, n, rows, columns, C)``."""
        padded = self.padded(x, strip, 1)
        n, _, width, channels = padded.shape
        half = self.memory("half", POINTS, n, strip.rows, width, channels)
        transform_input([_every_fourth(padded, i, 1, strip.rows) for i in range(POINTS)], list(half))
        values = self.memory("values", POINTS, POINTS, n, strip.rows, self.columns, channels)
        columns = [_every_fourth(half, i, 3, self.columns) for i in range(POINTS)]
        transform_input(columns, list(values.unbind(1)))
        return values

    def products(self, values: Tensor, transformed_weight: Tensor) -> Tensor:
        """Multiply the values of a strip by a weight, in the precision of the weight.

        Args:
            values: ``(POINTS, POINTS, n, rows, columns, C)``.
            transformed_weight: ``(POINTS * POINTS, C, K)``.

        Returns:
            ``(POINTS, POINTS, n, rows, columns, K)``.
        """
        factors = values.view(POINTS * POINTS, -1, self.channels)
        products = self.memory("products", *factors.shape[:2], self.num_outputs)
        if transformed_weight.dtype == self.dtype:
            torch.bmm(factors, transformed_weight, out=products)
        else:
            rounded = self.memory("values", *factors.shape, dtype=transformed_weight.dtype)
            rounded.copy_(factors)
            result = self.memory("products", *products.shape, dtype=transformed_weight.dtype)
            products.copy_(torch.bmm(rounded, transformed_weight, out=result))
        return products.view(*values.shape[:-1], self.num_outputs)

    def outputs(self, products: Tensor) -> Tensor:
        """Turn ``(POINTS, POINTS, n, rows, columns, K)`` products, which are overwritten, into outputs.

        Returns:
            ``(n, 4 * rows, 4 * columns, K)``.
        """
        _, _, n, rows, columns, channels = products.shape
        half = self.memory("half", OUTPUTS, POINTS, n, rows, columns, channels)
        transform_output(products.unbind(1), list(half))
        outputs = self.memory("pixels", n, rows, OUTPUTS, columns, OUTPUTS, channels)
        # (OUTPUTS, OUTPUTS, n, rows, columns, K): vertical and horizontal position in the tile
        by_position = outputs.permute(2, 4, 0, 1, 3, 5)
        transform_output(half.unbind(1), list(by_position))
        return outputs.view(n, OUTPUTS * rows, OUTPUTS * columns, channels)

    def gradient_values(self, gradient: Tensor, strip: _Strip) -> Tensor:
        """Return the gradients of the products of a strip: ``(POINTS, POINTS, n, rows, columns, K)``."""
        padded = self.padded(gradient, strip, 0)
        n, _, width, channels = padded.shape
        half = self.memory("half", POINTS, n, strip.rows, width, channels)
        transform_gradient([_every_fourth(padded, i, 1, strip.rows) for i in range(OUTPUTS)], list(half))
        values = self.memory("products", POINTS, POINTS, n, strip.rows, self.columns, channels)
        columns = [_every_fourth(half, i, 3, self.columns) for i in range(OUTPUTS)]
        transform_gradient(columns, list(values.unbind(1)))
        return values


_thread = threading.local()


def _memory_of_thread() -> dict[tuple[str, torch.dtype], Tensor]:
    """Return the working memory of this thread on a processor, which calls share.

    It holds a strip and, in training, a weight. If each call allocated it, the system would clear it each time.
    """
    memory: dict[tuple[str, torch.dtype], Tensor] = _thread.__dict__.setdefault("memory", {})
    return memory


def _precision(dtype: torch.dtype) -> torch.dtype:
    """Return the type of numbers of the transforms, whose rounding errors 16-bit numbers would multiply."""
    return torch.promote_types(dtype, torch.float32)


def _every_fourth(x: Tensor, start: int, dim: int, count: int) -> Tensor:
    """Return ``count`` slices of ``x`` along ``dim``, one per tile."""
    length = OUTPUTS * (count - 1) + 1
    return x.narrow(dim, start, length).unfold(dim, 1, OUTPUTS).squeeze(-1)


def transform_weight_torch(weight: Tensor) -> Tensor:
    """Map ``(K, C, 3, 3)`` weights to ``(36, C, K)`` values."""
    num_outputs, channels = weight.shape[:2]
    taps = weight.new_empty(TAPS, TAPS, channels, num_outputs, dtype=_precision(weight.dtype))
    return _transform_weight(weight, taps)


def _transform_weight(weight: Tensor, taps: Tensor, out: Tensor | None = None) -> Tensor:
    """Transform a weight by way of ``(TAPS, TAPS, C, K)`` memory, into ``out`` if given."""
    taps.copy_(weight.permute(2, 3, 1, 0))
    return transform_taps(taps.flatten(0, 1), out).to(weight.dtype)


def empty_output(x: Tensor, num_outputs: int) -> Tensor:
    """Return uninitialized memory for ``(N, K, H, W)`` outputs, stored channels last."""
    shape = (x.shape[0], num_outputs, x.shape[2], x.shape[3])
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def conv2d_torch(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute ``winograd_conv2d``."""
    transformed_weight = _Tiling(x.shape, weight.shape[0], x).transformed(weight)
    return forward_torch(x, transformed_weight, bias, False)


def forward_torch(x: Tensor, transformed_weight: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
    """Compute ``winograd_conv2d_transformed``."""
    tiling = _Tiling(x.shape, transformed_weight.shape[2], x)
    result = empty_output(x, tiling.num_outputs)
    x, by_pixel = x.permute(0, 2, 3, 1).contiguous(), result.permute(0, 2, 3, 1)
    for strip in tiling:
        outputs = tiling.outputs(tiling.products(tiling.values(x, strip), transformed_weight))
        target = by_pixel[strip.images, OUTPUTS * strip.first : OUTPUTS * (strip.first + strip.rows)]
        outputs = outputs[:, : target.shape[1], : target.shape[2]]
        if bias is not None:
            outputs += bias
        if relu:
            outputs.clamp_(min=0)
        target.copy_(outputs)
    return result


def weight_gradient_torch(x: Tensor, gradient: Tensor) -> Tensor:
    """Compute ``winograd_conv2d_weight_gradient``."""
    tiling = _Tiling(x.shape, gradient.shape[1], x)
    x, gradient = (t.permute(0, 2, 3, 1).contiguous() for t in (x, gradient))
    total = tiling.memory("weight", POINTS * POINTS, tiling.channels, tiling.num_outputs).zero_()
    for strip in tiling:
        gradients = tiling.gradient_values(gradient, strip).view(POINTS * POINTS, -1, tiling.num_outputs)
        values = tiling.values(x, strip).view(POINTS * POINTS, -1, tiling.channels)
        torch.baddbmm(total, values.transpose(1, 2), gradients, out=total)
    taps = untransform_taps(total).view(TAPS, TAPS, tiling.channels, tiling.num_outputs)
    return taps.permute(3, 2, 0, 1).to(x.dtype).contiguous()
