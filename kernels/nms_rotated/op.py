"""The registered op: checks, dispatch, shapes."""

from __future__ import annotations

import torch
from torch import Tensor

from hydet.kernels.box_iou_rotated.op import check_rotated
from hydet.kernels.dispatch import choose
from hydet.kernels.nms_rotated.reference import nms_rotated_reference

__all__ = ["batched_nms_rotated", "nms_rotated"]


@torch.library.custom_op("hydet::nms_rotated", mutates_args=())
def _nms_rotated(boxes: Tensor, scores: Tensor, groups: Tensor | None, iou_threshold: float) -> Tensor:
    if choose("nms_rotated", boxes.device) == "triton":
        from hydet.kernels.nms_rotated.triton_impl import launch_nms_rotated

        return launch_nms_rotated(boxes, scores, groups, iou_threshold)
    return nms_rotated_reference(boxes, scores, groups, iou_threshold)


@_nms_rotated.register_fake
def _(boxes: Tensor, scores: Tensor, groups: Tensor | None, iou_threshold: float) -> Tensor:
    count = torch.library.get_ctx().new_dynamic_size()
    return boxes.new_empty(count, dtype=torch.int64)


def _check(boxes: Tensor, scores: Tensor, groups: Tensor | None) -> None:
    check_rotated("boxes", boxes)
    if scores.shape != boxes.shape[:1]:
        raise ValueError(f"scores must be ({boxes.shape[0]},), one a box, got {tuple(scores.shape)}")
    if groups is not None and groups.shape != boxes.shape[:1]:
        raise ValueError(f"idxs must be ({boxes.shape[0]},), one a box, got {tuple(groups.shape)}")


def nms_rotated(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Greedy non-maximum suppression of rotated boxes.

    Args:
        boxes: ``(N, 5)`` as (cx, cy, w, h, degrees counter-clockwise in the image), in pixels.
        scores: ``(N,)``; equal ones rank by position.
        iou_threshold: a box goes if its IoU with a better one that stays is greater.

    Returns:
        int64 indices of the boxes that stay, by descending score. Boxes that are not finite or have no area
        overlap nothing, so they stay.

    Raises:
        ValueError: if shapes do not fit.
        TypeError: for integer boxes.
    """
    _check(boxes, scores, None)
    return _nms_rotated(boxes.detach(), scores.detach(), None, iou_threshold)


def batched_nms_rotated(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """``nms_rotated`` within each group: boxes of different ``idxs`` (``(N,)`` integers) never suppress one another.

    Groups are compared as such, not moved apart by an offset, so coordinates may have any sign and size.
    """
    _check(boxes, scores, idxs)
    return _nms_rotated(boxes.detach(), scores.detach(), idxs, iou_threshold)
