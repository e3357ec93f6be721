"""The op ``hydet::box_iou_rotated``: argument checks, dispatch and fake kernel. It has no gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from hydet.kernels.box_iou_rotated.torch_impl import forward_torch
from hydet.kernels.dispatch import Preference

__all__ = ["PREFERENCE", "box_iou_rotated", "check_rotated_boxes"]

# torchvision's box_iou accepts rotated boxes too, but no order lists it: its error reaches 0.27 where a box meets itself
# turned by 360 degrees and 0.35 far from the origin, and it is slower on a CPU.
PREFERENCE = Preference("box_iou_rotated", cpu=("torch",), cuda=("triton", "torch"))


def check_rotated_boxes(name: str, boxes: Tensor) -> None:
    """Raise unless ``boxes`` is a floating point tensor of shape ``(N, 5)``."""
    if boxes.ndim != 2 or boxes.shape[1] != 5:
        raise ValueError(f"{name} must be (N, 5) as (cx, cy, w, h, degrees), got {tuple(boxes.shape)}")
    if not boxes.is_floating_point():
        raise TypeError(f"{name} must be floating point, got {boxes.dtype}")


@torch.library.custom_op("hydet::box_iou_rotated", mutates_args=())
def _box_iou_rotated(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    if PREFERENCE.choose(boxes1.device) == "triton":
        from hydet.kernels.box_iou_rotated.triton_impl import launch_forward

        return launch_forward(boxes1, boxes2)
    return forward_torch(boxes1, boxes2)


@_box_iou_rotated.register_fake
def _(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    return boxes1.new_empty(boxes1.shape[0], boxes2.shape[0], dtype=torch.float32)


def box_iou_rotated(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Compute the intersection over union of all pairs of rotated boxes.

    The result is also accurate if edges coincide or nearly coincide (a box and itself turned by 360 degrees), for sides
    far below one pixel, and for boxes far from the origin, because each pair is compared in the frame of one of its
    boxes.

    The PyTorch implementation computes in float64 and rounds once. The Triton kernel computes in float32; if L is the
    longest side of the two boxes, its error is below ``1e-6 * L**2 / union area``. This is below 1e-5 for boxes of
    aspect ratio up to 10, and grows for thinner ones.

    Args:
        boxes1: ``(N, 5)`` as (cx, cy, w, h, degrees counter-clockwise in the image), in pixels.
        boxes2: ``(M, 5)`` in the same format.

    Returns:
        ``(N, M)`` float32 in [0, 1], without gradient. The IoU of a box that has a non-positive side or a non-finite
        value is 0, also with itself.

    Raises:
        ValueError: if a shape is not ``(N, 5)``, or the devices differ.
        TypeError: if boxes are integers.
    """
    check_rotated_boxes("boxes1", boxes1)
    check_rotated_boxes("boxes2", boxes2)
    if boxes1.device != boxes2.device:
        raise ValueError(
            f"boxes1 and boxes2 must be on the same device, got {boxes1.device} and {boxes2.device}"
        )
    iou: Tensor = _box_iou_rotated(boxes1.detach(), boxes2.detach())
    return iou
