"""The op ``hydet::nms_rotated``: argument checks, dispatch and fake kernel. It has no gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from hydet.kernels.box_iou_rotated.op import check_rotated_boxes
from hydet.kernels.dispatch import Preference
from hydet.kernels.nms_rotated.torch_impl import forward_torch

__all__ = ["PREFERENCE", "batched_nms_rotated", "nms_rotated"]

PREFERENCE = Preference("nms_rotated", cpu=("torch",), cuda=("triton", "torch"))


@torch.library.custom_op("hydet::nms_rotated", mutates_args=())
def _nms_rotated(boxes: Tensor, scores: Tensor, groups: Tensor | None, iou_threshold: float) -> Tensor:
    if PREFERENCE.choose(boxes.device) == "triton":
        from hydet.kernels.nms_rotated.triton_impl import launch_forward

        return launch_forward(boxes, scores, groups, iou_threshold)
    return forward_torch(boxes, scores, groups, iou_threshold)


@_nms_rotated.register_fake
def _(boxes: Tensor, scores: Tensor, groups: Tensor | None, iou_threshold: float) -> Tensor:
    num_kept = torch.library.get_ctx().new_dynamic_size()
    return boxes.new_empty(num_kept, dtype=torch.int64)


def _check(boxes: Tensor, scores: Tensor, groups: Tensor | None) -> None:
    check_rotated_boxes("boxes", boxes)
    if scores.shape != boxes.shape[:1]:
        raise ValueError(f"scores must be ({boxes.shape[0]},), one per box, got {tuple(scores.shape)}")
    if groups is not None and groups.shape != boxes.shape[:1]:
        raise ValueError(f"idxs must be ({boxes.shape[0]},), one per box, got {tuple(groups.shape)}")


def nms_rotated(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Apply greedy non-maximum suppression to rotated boxes.

    Args:
        boxes: ``(N, 5)`` as (cx, cy, w, h, degrees counter-clockwise in the image), in pixels.
        scores: ``(N,)``. Boxes of equal score rank by position.
        iou_threshold: a box is dropped if its IoU with a kept box of better rank exceeds this value.

    Returns:
        int64 indices of the kept boxes, by descending score. Boxes without area or with a non-finite value have an IoU
        of 0 with every box, so they are kept.

    Raises:
        ValueError: if the shapes do not match.
        TypeError: if ``boxes`` are integers.
    """
    _check(boxes, scores, None)
    keep: Tensor = _nms_rotated(boxes.detach(), scores.detach(), None, iou_threshold)
    return keep


def batched_nms_rotated(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """Apply ``nms_rotated`` within each group.

    Groups are compared directly and not separated by an offset of the coordinates, so coordinates may have any sign
    and size.

    Args:
        boxes: ``(N, 5)`` as in ``nms_rotated``.
        scores: ``(N,)``. Boxes of equal score rank by position.
        idxs: ``(N,)`` integer group of each box. Boxes of different groups never suppress each other.
        iou_threshold: a box is dropped if its IoU with a kept box of better rank exceeds this value.

    Returns:
        int64 indices of the kept boxes of all groups, by descending score.

    Raises:
        ValueError: if the shapes do not match.
        TypeError: if ``boxes`` are integers.
    """
    _check(boxes, scores, idxs)
    keep: Tensor = _nms_rotated(boxes.detach(), scores.detach(), idxs, iou_threshold)
    return keep
