"""The registered op: checks, dispatch, shapes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hydet.kernels.dispatch import choose
from hydet.kernels.match.reference import match_anchors_reference

__all__ = ["match_anchors"]


@torch.library.custom_op("hydet::match_anchors", mutates_args=())
def _match_anchors(
    anchors: Tensor,
    gt_boxes: Tensor,
    thresholds: Sequence[float],
    labels: Sequence[int],
    allow_low_quality_matches: bool,
) -> tuple[Tensor, Tensor]:
    if choose("match", anchors.device) == "triton":
        from hydet.kernels.match.triton_impl import launch_match_anchors

        return launch_match_anchors(anchors, gt_boxes, thresholds, labels, allow_low_quality_matches)
    return match_anchors_reference(anchors, gt_boxes, thresholds, labels, allow_low_quality_matches)


@_match_anchors.register_fake
def _(
    anchors: Tensor,
    gt_boxes: Tensor,
    thresholds: Sequence[float],
    labels: Sequence[int],
    allow_low_quality_matches: bool,
) -> tuple[Tensor, Tensor]:
    count = anchors.shape[0]
    return anchors.new_empty(count, dtype=torch.int64), anchors.new_empty(count, dtype=torch.int8)


def match_anchors(
    anchors: Tensor,
    gt_boxes: Tensor,
    *,
    thresholds: Sequence[float],
    labels: Sequence[int],
    allow_low_quality_matches: bool = False,
) -> tuple[Tensor, Tensor]:
    """Overlap, best match, labels and low-quality matches in one go, without the (G, R) matrix of overlaps.

    The result is that of ``Matcher(thresholds, labels, allow_low_quality_matches)`` on
    ``pairwise_iou(gt_boxes, anchors)``.

    Args:
        anchors: ``(R, 4)`` xyxy.
        gt_boxes: ``(G, 4)`` xyxy; G may be 0.
        thresholds: ascending bounds of the ranges of IoU; a range includes its lower bound.
        labels: one for each range, ``len(thresholds) + 1`` of them: -1 (ignore), 0 (background) or 1 (match).
        allow_low_quality_matches: label 1 also the anchors, ties included, that overlap some ground truth most,
            if that is more than 0; they keep the ground truth that they overlap best themselves.

    Returns:
        ``(R,)`` int64 index of the ground truth overlapped best, the first of equals, 0 where there is none; and
        ``(R,)`` int8 labels. Boxes without a finite area overlap nothing.

    Raises:
        ValueError: if shapes or the numbers of thresholds and labels do not fit.
    """
    for name, boxes in (("anchors", anchors), ("gt_boxes", gt_boxes)):
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise ValueError(f"{name} must be (N, 4), got {tuple(boxes.shape)}")
    if len(labels) != len(thresholds) + 1:
        raise ValueError(f"{len(thresholds)} thresholds need {len(thresholds) + 1} labels, got {len(labels)}")
    if list(thresholds) != sorted(thresholds):
        raise ValueError(f"thresholds must ascend, got {list(thresholds)}")
    bounds, names = [float(t) for t in thresholds], [int(label) for label in labels]
    return _match_anchors(anchors.detach(), gt_boxes.detach(), bounds, names, allow_low_quality_matches)
