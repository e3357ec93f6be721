"""Formats of a box, and conversion between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum, unique
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from hydet.structures.box_ops import enclosing_boxes

T = TypeVar("T", list[float], tuple[float, ...], np.ndarray, Tensor)


@unique
class BoxMode(IntEnum):
    """Format of the numbers of a box. Files store the enum values, so they never change."""

    XYXY_ABS = 0
    """``(x1, y1, x2, y2)`` in pixels."""
    XYWH_ABS = 1
    """``(x1, y1, width, height)`` in pixels."""
    XYXY_REL = 2
    """``(x1, y1, x2, y2)`` in [0, 1], relative to the image size. Cannot be converted, since the size is unknown."""
    XYWH_REL = 3
    """``(x1, y1, width, height)`` in [0, 1], relative to the image size. Cannot be converted, since the size is unknown."""
    XYWHA_ABS = 4
    """``(cx, cy, width, height, angle)``: center and sides in pixels, angle in degrees counter-clockwise on screen."""

    @staticmethod
    def convert(box: T, from_mode: BoxMode, to_mode: BoxMode) -> T:
        """Convert boxes to another format.

        A rotated box becomes the smallest upright box around it; an upright box becomes a box rotated by 0 degrees.

        Args:
            box: an ``(N, k)`` tensor or array, or the ``k`` numbers of one box as a list, tuple, tensor or array;
                ``k`` is 5 for ``XYWHA_ABS``, otherwise 4. Not modified.
            from_mode: format of ``box``.
            to_mode: format of the result.

        Returns:
            The boxes in the type and dtype of ``box``.

        Raises:
            TypeError: if ``box`` is of another type, or a list or tuple of several boxes.
            ValueError: if ``k`` does not match ``from_mode``, if a mode is relative, or if a tensor or array of integers
                is converted to or from ``XYWHA_ABS``.
        """
        from_mode, to_mode = BoxMode(from_mode), BoxMode(to_mode)
        if from_mode == to_mode:
            return box
        for mode in (from_mode, to_mode):
            if mode in (BoxMode.XYXY_REL, BoxMode.XYWH_REL):
                raise ValueError(f"BoxMode.{mode.name} cannot be converted without the size of the image")
        numbers = _as_tensor(box)
        width = 5 if from_mode == BoxMode.XYWHA_ABS else 4
        if numbers.ndim not in (1, 2) or numbers.shape[-1] != width:
            raise ValueError(
                f"a box of mode {from_mode.name} has {width} numbers, got shape {tuple(numbers.shape)}"
            )
        rotated = BoxMode.XYWHA_ABS in (from_mode, to_mode)
        if rotated and not numbers.is_floating_point():
            if isinstance(box, Tensor | np.ndarray):
                raise ValueError(
                    f"converting {from_mode.name} to {to_mode.name} takes floats, got {numbers.dtype}"
                )
            numbers = numbers.to(torch.float64)
        xyxy = _TO_XYXY[from_mode](numbers.to(torch.float64) if rotated else numbers)
        converted = _FROM_XYXY[to_mode](xyxy).to(numbers.dtype)
        if isinstance(box, Tensor):
            return converted
        if isinstance(box, np.ndarray):
            return converted.numpy()
        return type(box)(converted.tolist())


def _as_tensor(box: Sequence[float] | np.ndarray | Tensor) -> Tensor:
    if isinstance(box, Tensor):
        return box
    if isinstance(box, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(box))
    if not isinstance(box, list | tuple):
        raise TypeError(f"BoxMode.convert takes a list, tuple, array or tensor, got {type(box).__name__}")
    if any(isinstance(number, list | tuple) for number in box):
        raise TypeError(
            "BoxMode.convert takes the numbers of one box as a list or tuple; pass several boxes as an (N, k) array or tensor"
        )
    whole = all(isinstance(number, int) for number in box)
    return torch.tensor(box, dtype=torch.int64 if whole else torch.float64)


def _xywh_to_xyxy(boxes: Tensor) -> Tensor:
    return torch.cat([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], dim=-1)


def _xyxy_to_xywh(boxes: Tensor) -> Tensor:
    return torch.cat([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], dim=-1)


def _xyxy_to_xywha(boxes: Tensor) -> Tensor:
    near, far = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(near + far) / 2, far - near, torch.zeros_like(boxes[..., :1])], dim=-1)


_TO_XYXY: Mapping[BoxMode, Callable[[Tensor], Tensor]] = {
    BoxMode.XYXY_ABS: lambda boxes: boxes,
    BoxMode.XYWH_ABS: _xywh_to_xyxy,
    BoxMode.XYWHA_ABS: enclosing_boxes,
}
_FROM_XYXY: Mapping[BoxMode, Callable[[Tensor], Tensor]] = {
    BoxMode.XYXY_ABS: lambda boxes: boxes,
    BoxMode.XYWH_ABS: _xyxy_to_xywh,
    BoxMode.XYWHA_ABS: _xyxy_to_xywha,
}
