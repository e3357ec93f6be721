"""A padded batch of images of different sizes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils import _pytree as pytree


class ImageList:
    """A batch of images, padded at the right and bottom to a common size, with their sizes before padding.

    Args:
        tensor: ``(N, C_1, ..., C_K, H, W)``, or ``(N, H, W)``.
        image_sizes: N pairs ``(h, w)`` with ``h <= H`` and ``w <= W``, before padding.
    """

    tensor: Tensor
    image_sizes: list[tuple[int, int]]

    def __init__(self, tensor: Tensor, image_sizes: Sequence[tuple[int, int]]) -> None:
        self.tensor = tensor
        self.image_sizes = [tuple(size) for size in image_sizes]  # type: ignore[misc]

    @property
    def device(self) -> torch.device:
        """Device of the tensor."""
        return self.tensor.device

    def __len__(self) -> int:
        return len(self.image_sizes)

    def __getitem__(self, idx: int) -> Tensor:
        """Return image ``idx`` without padding, as a view."""
        h, w = self.image_sizes[idx]
        return self.tensor[idx, ..., :h, :w]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def to(self, *args: Any, **kwargs: Any) -> ImageList:
        """Return the batch after ``tensor.to(*args, **kwargs)``."""
        return ImageList(self.tensor.to(*args, **kwargs), self.image_sizes)

    def __repr__(self) -> str:
        return f"ImageList(tensor of shape {tuple(self.tensor.shape)}, image_sizes={self.image_sizes})"

    @staticmethod
    def from_tensors(
        tensors: Sequence[Tensor],
        size_divisibility: int = 0,
        pad_value: float = 0.0,
        padding_constraints: Mapping[str, int] | None = None,
    ) -> ImageList:
        """Pad images at the right and bottom to a common size and stack them.

        Args:
            tensors: ``(C_1, ..., C_K, h, w)`` or ``(h, w)`` each; all but the last two dimensions are equal.
            size_divisibility: if above 1, the common height and width are rounded up to multiples of it.
            pad_value: value of the padding.
            padding_constraints: optional ``square_size`` (> 0: height and width before rounding up) and
                ``size_divisibility`` (replaces the argument of that name).

        Returns:
            The batch; its tensor is ``(N, C_1, ..., C_K, H, W)`` or ``(N, H, W)``.

        Raises:
            TypeError: if ``tensors`` is not a sequence of tensors.
            ValueError: if the list is empty, if the images differ in more than their size, or if an image exceeds
                ``square_size``.
        """
        if not isinstance(tensors, list | tuple) or not all(isinstance(t, Tensor) for t in tensors):
            raise TypeError(f"ImageList.from_tensors takes a list of tensors, got {type(tensors).__name__}")
        if len(tensors) == 0:
            raise ValueError("ImageList.from_tensors takes at least one image, got none")
        first = tensors[0]
        for t in tensors:
            if t.ndim < 2 or t.shape[:-2] != first.shape[:-2]:
                shapes = [tuple(t.shape) for t in tensors]
                raise ValueError(
                    f"images must be (..., h, w) and equal in all dimensions but h and w, got shapes {shapes}"
                )

        image_sizes = [(t.shape[-2], t.shape[-1]) for t in tensors]
        height, width = (max(sides) for sides in zip(*image_sizes))
        constraints = padding_constraints or {}
        square_size = constraints.get("square_size", 0)
        if square_size > 0:
            if max(height, width) > square_size:
                raise ValueError(f"images up to {height} x {width} do not fit square_size {square_size}")
            height = width = square_size
        size_divisibility = constraints.get("size_divisibility", size_divisibility)
        if size_divisibility > 1:
            height, width = (-(-side // size_divisibility) * size_divisibility for side in (height, width))

        if len(tensors) == 1:  # at most one copy, and this branch can be exported
            h, w = image_sizes[0]
            return ImageList(F.pad(first, (0, width - w, 0, height - h), value=pad_value)[None], image_sizes)
        batch = first.new_full((len(tensors), *first.shape[:-2], height, width), pad_value)
        for image, t in zip(batch, tensors):
            image[..., : t.shape[-2], : t.shape[-1]].copy_(t)
        return ImageList(batch, image_sizes)


# Pytree: the tensor is the only child; the sizes are context.


def _flatten(images: ImageList) -> tuple[list[Tensor], tuple[tuple[int, int], ...]]:
    return [images.tensor], tuple(images.image_sizes)


def _flatten_with_keys(
    images: ImageList,
) -> tuple[list[tuple[pytree.KeyEntry, Tensor]], tuple[tuple[int, int], ...]]:
    children, context = _flatten(images)
    return [(pytree.GetAttrKey("tensor"), children[0])], context


def _unflatten(children: Iterable[Any], context: Any) -> ImageList:
    (tensor,) = children
    return ImageList(tensor, context)


pytree.register_pytree_node(
    ImageList,
    _flatten,
    _unflatten,
    serialized_type_name="hydet.structures.ImageList",
    flatten_with_keys_fn=_flatten_with_keys,
    to_dumpable_context=json.dumps,
    from_dumpable_context=lambda text: tuple(tuple(size) for size in json.loads(text)),
)
