"""The registered op: checks, dispatch, shapes."""

from __future__ import annotations

import torch
from torch import Tensor

from hydet.kernels.dispatch import choose
from hydet.kernels.nms.reference import nms_padded_reference, nms_padded_torchvision

__all__ = ["nms_padded"]


@torch.library.custom_op("hydet::nms_padded", mutates_args=())
def _nms_padded(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor | None,
    valid: Tensor | None,
    iou_threshold: float,
    max_outputs: int,
) -> tuple[Tensor, Tensor]:
    backend = choose("nms", boxes.device)
    if backend == "triton":
        from hydet.kernels.nms.triton_impl import launch_nms_padded

        return launch_nms_padded(boxes, scores, groups, valid, iou_threshold, max_outputs)
    suppress = nms_padded_torchvision if backend == "torchvision" else nms_padded_reference
    return suppress(boxes, scores, groups, valid, iou_threshold, max_outputs)


@_nms_padded.register_fake
def _(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor | None,
    valid: Tensor | None,
    iou_threshold: float,
    max_outputs: int,
) -> tuple[Tensor, Tensor]:
    indices = scores.new_empty(scores.shape[0], max_outputs, dtype=torch.int64)
    return indices, scores.new_empty(scores.shape[0], dtype=torch.int64)


def nms_padded(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    *,
    groups: Tensor | None = None,
    valid: Tensor | None = None,
    max_outputs: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Greedy non-maximum suppression of several images at once, with shapes that do not depend on the result.

    On CUDA nothing waits for the device, so that it can be captured in a CUDA graph. Which box overlaps which is
    decided as torchvision's CPU op decides it: IoU in float32, compared with the threshold in float64.

    Args:
        boxes: ``(B, N, 4)`` xyxy, padded to N boxes an image.
        scores: ``(B, N)``; equal ones rank by position.
        iou_threshold: a box goes if its IoU with a better one that stays is greater.
        groups: ``(B, N)`` integers such as classes or levels; different groups never suppress one another.
        valid: ``(B, N)`` bool, False for padding; None if there is none.
        max_outputs: K, at most so many survivors of each image, the best; None for N.

    Returns:
        ``(B, K)`` int64 indices into N of the survivors by descending score, 0 behind the last, and ``(B,)`` int64
        counts. A box with a NaN, or of infinite size, overlaps nothing, so it stays.

    Raises:
        ValueError: if shapes do not fit or ``max_outputs`` is negative.
        TypeError: for integer boxes, or ``valid`` that is not bool.
    """
    if boxes.ndim != 3 or boxes.shape[2] != 4:
        raise ValueError(f"boxes must be (B, N, 4), got {tuple(boxes.shape)}")
    if not boxes.is_floating_point():
        raise TypeError(f"boxes must be floating point, got {boxes.dtype}")
    for name, value in (("scores", scores), ("groups", groups), ("valid", valid)):
        if value is not None and value.shape != boxes.shape[:2]:
            raise ValueError(f"{name} must be {tuple(boxes.shape[:2])}, one a box, got {tuple(value.shape)}")
    if valid is not None and valid.dtype != torch.bool:
        raise TypeError(f"valid must be bool, got {valid.dtype}")
    if max_outputs is None:
        max_outputs = boxes.shape[1]
    elif max_outputs < 0:
        raise ValueError(f"max_outputs must not be negative, got {max_outputs}")
    return _nms_padded(boxes.detach(), scores.detach(), groups, valid, iou_threshold, max_outputs)
