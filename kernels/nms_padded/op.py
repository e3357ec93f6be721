"""The op ``hydet::nms_padded``: argument checks, dispatch and fake kernel. It has no gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from hydet.kernels.dispatch import Preference
from hydet.kernels.nms_padded.ranking import check_batch, empty_result
from hydet.kernels.nms_padded.torch_impl import forward_torch

__all__ = ["PREFERENCE", "nms_padded"]

# torchvision's op synchronizes with the host for every image and group, which is cheap on a CPU only.
PREFERENCE = Preference("nms_padded", cpu=("torchvision", "torch"), cuda=("triton", "torch"))


@torch.library.custom_op("hydet::nms_padded", mutates_args=())
def _nms_padded(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor | None,
    valid: Tensor | None,
    iou_threshold: float,
    max_outputs: int,
) -> tuple[Tensor, Tensor]:
    backend = PREFERENCE.choose(boxes.device)
    if backend == "triton":
        from hydet.kernels.nms_padded.triton_impl import launch_forward

        return launch_forward(boxes, scores, groups, valid, iou_threshold, max_outputs)
    if backend == "torchvision":
        from hydet.kernels.nms_padded.torchvision_impl import forward_torchvision

        return forward_torchvision(boxes, scores, groups, valid, iou_threshold, max_outputs)
    return forward_torch(boxes, scores, groups, valid, iou_threshold, max_outputs)


@_nms_padded.register_fake
def _(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor | None,
    valid: Tensor | None,
    iou_threshold: float,
    max_outputs: int,
) -> tuple[Tensor, Tensor]:
    return empty_result(scores, max_outputs)


def nms_padded(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    *,
    groups: Tensor | None = None,
    valid: Tensor | None = None,
    max_outputs: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Apply greedy non-maximum suppression to several images at once. Shapes do not depend on the result.

    On CUDA it never synchronizes with the host, so it can be captured in a CUDA graph. Overlaps are decided as in
    torchvision's CPU op: the IoU is computed in float32 and compared with the threshold in float64.

    Args:
        boxes: ``(B, N, 4)`` xyxy, padded to N boxes per image.
        scores: ``(B, N)``. Boxes of equal score rank by position.
        iou_threshold: a box is dropped if its IoU with a kept box of better rank exceeds this value.
        groups: ``(B, N)`` integers, such as classes or levels. Boxes of different groups never suppress each other.
        valid: ``(B, N)`` bool, False for padding; None if there is no padding.
        max_outputs: number of outputs K per image, the best ones; None for N.

    Returns:
        ``(B, K)`` int64 indices of the kept boxes by descending score, 0 behind the last one, and ``(B,)`` int64
        counts. Boxes that contain NaN or have infinite size overlap nothing, so they are kept.

    Raises:
        ValueError: if the shapes do not match, or ``max_outputs`` is negative.
        TypeError: if ``boxes`` are integers, or ``valid`` is not bool.
    """
    check_batch(boxes, 4, scores, groups, valid, max_outputs)
    if max_outputs is None:
        max_outputs = boxes.shape[1]
    result: tuple[Tensor, Tensor] = _nms_padded(
        boxes.detach(), scores.detach(), groups, valid, iou_threshold, max_outputs
    )
    return result
