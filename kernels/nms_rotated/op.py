"""The ops ``hydet::nms_rotated`` and ``hydet::nms_rotated_padded``: checks, dispatch, fake kernels. No gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from hydet.kernels.box_iou_rotated.op import check_rotated_boxes
from hydet.kernels.dispatch import Preference
from hydet.kernels.nms_padded.ranking import check_batch, empty_result, pack_survivors, sort_by_score
from hydet.kernels.nms_rotated.torch_impl import forward_torch

__all__ = ["PREFERENCE", "batched_nms_rotated", "nms_rotated", "nms_rotated_padded"]

PREFERENCE = Preference("nms_rotated", cpu=("torch",), cuda=("triton", "torch"))


@torch.library.custom_op("hydet::nms_rotated", mutates_args=())
def _nms_rotated(boxes: Tensor, scores: Tensor, groups: Tensor | None, iou_threshold: float) -> Tensor:
    return _suppress(boxes, scores, groups, iou_threshold)


def _suppress(boxes: Tensor, scores: Tensor, groups: Tensor | None, iou_threshold: float) -> Tensor:
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


@torch.library.custom_op("hydet::nms_rotated_padded", mutates_args=())
def _nms_rotated_padded(
    boxes: Tensor, scores: Tensor, groups: Tensor, valid: Tensor, iou_threshold: float, max_outputs: int
) -> tuple[Tensor, Tensor]:
    # The boxes of all images are suppressed together, in groups of their own. Invalid boxes are left out before, since
    # each of them would be compared with all others.
    image, position = valid.nonzero(as_tuple=True)
    flat_groups = groups[image, position]
    if scores.shape[0] > 1 and flat_groups.shape[0] > 0:
        flat_groups = flat_groups + image * (flat_groups.amax() + 1)
    survivors = _suppress(boxes[image, position], scores[image, position], flat_groups, iou_threshold)
    keep = torch.zeros_like(valid)
    keep[image[survivors], position[survivors]] = True
    order = sort_by_score(scores)
    return pack_survivors(order, keep.gather(1, order), max_outputs)


@_nms_rotated_padded.register_fake
def _(
    boxes: Tensor, scores: Tensor, groups: Tensor, valid: Tensor, iou_threshold: float, max_outputs: int
) -> tuple[Tensor, Tensor]:
    return empty_result(scores, max_outputs)


def nms_rotated_padded(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    *,
    groups: Tensor,
    valid: Tensor,
    max_outputs: int,
) -> tuple[Tensor, Tensor]:
    """Apply ``nms_rotated`` to several images at once. Shapes do not depend on the result; see ``nms_padded``.

    Args:
        boxes: ``(B, N, 5)`` as in ``nms_rotated``, padded to N boxes per image.
        scores: ``(B, N)``. Boxes of equal score rank by position.
        iou_threshold: a box is dropped if its IoU with a kept box of better rank exceeds this value.
        groups: ``(B, N)`` integers from 0. Boxes of different groups never suppress each other.
        valid: ``(B, N)`` bool, False for padding.
        max_outputs: number of outputs K per image, the best ones.

    Returns:
        ``(B, K)`` int64 indices of the kept boxes by descending score, 0 behind the last one, and ``(B,)`` int64
        counts.

    Raises:
        ValueError: if the shapes do not match, or ``max_outputs`` is negative.
        TypeError: if ``boxes`` are integers, or ``valid`` is not bool.
    """
    check_batch(boxes, 5, scores, groups, valid, max_outputs)
    result: tuple[Tensor, Tensor] = _nms_rotated_padded(
        boxes.detach(), scores.detach(), groups, valid, iou_threshold, max_outputs
    )
    return result
