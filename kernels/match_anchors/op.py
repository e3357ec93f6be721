"""The op ``hydet::match_anchors``: argument checks, dispatch and fake kernel. It has no gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hydet.kernels.dispatch import Preference
from hydet.kernels.match_anchors.torch_impl import forward_torch

__all__ = ["PREFERENCE", "match_anchors"]

PREFERENCE = Preference("match_anchors", cpu=("torch",), cuda=("triton", "torch"))


@torch.library.custom_op("hydet::match_anchors", mutates_args=())
def _match_anchors(
    anchors: Tensor,
    gt_boxes: Tensor,
    thresholds: Sequence[float],
    labels: Sequence[int],
    allow_low_quality_matches: bool,
) -> tuple[Tensor, Tensor]:
    if PREFERENCE.choose(anchors.device) == "triton":
        from hydet.kernels.match_anchors.triton_impl import launch_forward

        return launch_forward(anchors, gt_boxes, thresholds, labels, allow_low_quality_matches)
    return forward_torch(anchors, gt_boxes, thresholds, labels, allow_low_quality_matches)


@_match_anchors.register_fake
def _(
    anchors: Tensor,
    gt_boxes: Tensor,
    thresholds: Sequence[float],
    labels: Sequence[int],
    allow_low_quality_matches: bool,
) -> tuple[Tensor, Tensor]:
    num_anchors = anchors.shape[0]
    return anchors.new_empty(num_anchors, dtype=torch.int64), anchors.new_empty(num_anchors, dtype=torch.int8)


def match_anchors(
    anchors: Tensor,
    gt_boxes: Tensor,
    *,
    thresholds: Sequence[float],
    labels: Sequence[int],
    allow_low_quality_matches: bool = False,
) -> tuple[Tensor, Tensor]:
    """Match each anchor with the ground-truth box of highest IoU and label it, without the (G, R) matrix of IoUs.

    The result equals that of ``Matcher(thresholds, labels, allow_low_quality_matches)`` on
    ``pairwise_iou(gt_boxes, anchors)``.

    Args:
        anchors: ``(R, 4)`` xyxy.
        gt_boxes: ``(G, 4)`` xyxy; G may be 0.
        thresholds: ascending bounds of the IoU ranges. A range includes its lower bound.
        labels: one label per range, ``len(thresholds) + 1`` in total: -1 (ignore), 0 (background) or 1 (match).
        allow_low_quality_matches: also label as 1 the anchors that have the highest IoU with some ground truth, ties
            included, if that IoU is above 0. They stay matched with the ground truth that they overlap most.

    Returns:
        ``(R,)`` int64 index of the ground truth with the highest IoU, the first one if several are equal and 0 if none
        overlaps; and ``(R,)`` int8 labels. Boxes without a finite area overlap nothing.

    Raises:
        ValueError: if the shapes or the numbers of thresholds and labels do not match.
    """
    for name, boxes in (("anchors", anchors), ("gt_boxes", gt_boxes)):
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise ValueError(f"{name} must be (N, 4), got {tuple(boxes.shape)}")
    if len(labels) != len(thresholds) + 1:
        raise ValueError(f"{len(thresholds)} thresholds need {len(thresholds) + 1} labels, got {len(labels)}")
    if list(thresholds) != sorted(thresholds):
        raise ValueError(f"thresholds must be in ascending order, got {list(thresholds)}")
    bounds, range_labels = [float(bound) for bound in thresholds], [int(label) for label in labels]
    result: tuple[Tensor, Tensor] = _match_anchors(
        anchors.detach(), gt_boxes.detach(), bounds, range_labels, allow_low_quality_matches
    )
    return result
