"""Selection of the sampled proposals that mask and keypoint heads train on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hydet.structures import Instances

__all__ = ["carry_ground_truth", "select_foreground_proposals", "select_proposals_with_visible_keypoints"]


def carry_ground_truth(instances: Sequence[Instances]) -> bool:
    """Return True if ``instances`` are labeled proposals: with ``gt_classes``, and without ``pred_boxes``.

    Detections that were matched with objects have both fields; they stay detections.
    """
    return any(i.has("gt_classes") and not i.has("pred_boxes") for i in instances)


def select_foreground_proposals(
    proposals: Sequence[Instances], bg_label: int
) -> tuple[list[Instances], list[Tensor]]:
    """Keep the proposals that are matched with an object.

    Args:
        proposals: per image, with ``gt_classes``: -1 is ignored, ``bg_label`` is background, all else is foreground.
        bg_label: label of the background, usually the number of classes.

    Returns:
        Per image, the foreground proposals, and a ``(R,)`` bool mask of their positions in ``proposals``.

    Raises:
        ValueError: if ``gt_classes`` is missing.
    """
    missing = [i for i, proposals_i in enumerate(proposals) if not proposals_i.has("gt_classes")]
    if missing:
        raise ValueError(f"proposals of images {missing} have no gt_classes")
    masks = [(p.gt_classes != -1) & (p.gt_classes != bg_label) for p in proposals]
    foreground = [p[mask.nonzero().squeeze(1)] for p, mask in zip(proposals, masks, strict=True)]
    return foreground, masks


def select_proposals_with_visible_keypoints(proposals: Sequence[Instances]) -> list[Instances]:
    """Keep the proposals that contain at least one visible keypoint of their object.

    A keypoint head has nothing to learn from the other proposals: keypoints outside the proposal are not on its
    heatmap.

    Args:
        proposals: per image, foreground with ``proposal_boxes`` and (unless empty) ``gt_keypoints``.

    Returns:
        Per image, the remaining proposals. A keypoint is visible if it is labeled and inside the proposal, edges
        included.
    """
    return [p[_has_visible_keypoint(p).nonzero().squeeze(1)] if len(p) > 0 else p for p in proposals]


def _has_visible_keypoint(proposals: Instances) -> Tensor:
    points, visibility = proposals.gt_keypoints.tensor[..., :2], proposals.gt_keypoints.tensor[..., 2]
    corners = proposals.proposal_boxes.tensor[:, None]  # (R, 1, 4)
    inside = (points >= corners[..., :2]) & (points <= corners[..., 2:])  # (R, K, 2)
    return torch.any(inside.all(dim=2) & (visibility >= 1), dim=1)
