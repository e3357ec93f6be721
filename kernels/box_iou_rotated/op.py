"""The registered op: checks, dispatch, shapes."""

from __future__ import annotations

import torch
from torch import Tensor

from hydet.kernels.box_iou_rotated.reference import box_iou_rotated_reference
from hydet.kernels.dispatch import choose

__all__ = ["box_iou_rotated"]


def check_rotated(name: str, boxes: Tensor) -> None:
    """Raise unless ``boxes`` is a floating point ``(N, 5)``."""
    if boxes.ndim != 2 or boxes.shape[1] != 5:
        raise ValueError(f"{name} must be (N, 5) as (cx, cy, w, h, degrees), got {tuple(boxes.shape)}")
    if not boxes.is_floating_point():
        raise TypeError(f"{name} must be floating point, got {boxes.dtype}")


@torch.library.custom_op("hydet::box_iou_rotated", mutates_args=())
def _box_iou_rotated(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    if choose("box_iou_rotated", boxes1.device) == "triton":
        from hydet.kernels.box_iou_rotated.triton_impl import launch_box_iou_rotated

        return launch_box_iou_rotated(boxes1, boxes2)
    return box_iou_rotated_reference(boxes1, boxes2)


@_box_iou_rotated.register_fake
def _(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    return boxes1.new_empty(boxes1.shape[0], boxes2.shape[0], dtype=torch.float32)


def box_iou_rotated(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Intersection over union of each pair of rotated boxes.

    Right also where edges coincide or nearly do (a box and itself turned by 360 degrees), for sides far below
    a pixel, and for boxes far from the origin: pairs are compared in a frame of their own.

    Error: the torch path computes in float64 and rounds once. The Triton kernel computes in float32; with L the
    longest side of the two, its error is below ``1e-6 * L**2 / union area``, thus below 1e-5 for boxes of
    aspect ratio up to 10 and growing for needles.

    Args:
        boxes1: ``(N, 5)`` as (cx, cy, w, h, degrees counter-clockwise in the image), in pixels.
        boxes2: ``(M, 5)``, likewise.

    Returns:
        ``(N, M)`` float32 in [0, 1], without gradient. A box with a side that is not positive, or with a number
        that is not finite, overlaps nothing, itself included.

    Raises:
        ValueError: if a shape is not ``(N, 5)``, or the devices differ.
        TypeError: for integer boxes.
    """
    check_rotated("boxes1", boxes1)
    check_rotated("boxes2", boxes2)
    if boxes1.device != boxes2.device:
        raise ValueError(f"boxes must be on one device, got {boxes1.device} and {boxes2.device}")
    return _box_iou_rotated(boxes1.detach(), boxes2.detach())
