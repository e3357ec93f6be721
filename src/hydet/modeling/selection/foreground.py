"""Which sampled proposals a head learns from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hydet.structures import Instances

__all__ = ["carry_ground_truth", "select_foreground_proposals", "select_proposals_with_visible_keypoints"]


def carry_ground_truth(instances: Sequence[Instances]) -> bool:
    """Whether a head is to compute losses: proposals that were labelled have ``gt_classes``, detections have not."""
    return any(found.has("gt_classes") for found in instances)


def select_foreground_proposals(
    proposals: Sequence[Instances], bg_label: int
) -> tuple[list[Instances], list[Tensor]]:
    """Keep the proposals that were matched with an object.

    Args:
        proposals: per image, with ``gt_classes``: -1 is ignored, ``bg_label`` background, all else foreground.
        bg_label: see ``proposals``.

    Returns:
        Per image, the foreground, and a ``(R,)`` bool mask of where it was.

    Raises:
        ValueError: if ``gt_classes`` is missing.
    """
    missing = [i for i, found in enumerate(proposals) if not found.has("gt_classes")]
    if missing:
        raise ValueError(f"proposals of images {missing} have no gt_classes")
    masks = [(p.gt_classes != -1) & (p.gt_classes != bg_label) for p in proposals]
    chosen = [p[mask.nonzero().squeeze(1)] for p, mask in zip(proposals, masks, strict=True)]
    return chosen, masks


def select_proposals_with_visible_keypoints(proposals: Sequence[Instances]) -> list[Instances]:
    """Keep the proposals that hold at least one visible keypoint of their object.

    Args:
        proposals: foreground, per image, with ``proposal_boxes`` and (unless there is none) ``gt_keypoints``.

    Returns:
        As many images; a keypoint counts if it is labelled and inside the proposal, edges included.
    """
    return [p[_sees_keypoint(p).nonzero().squeeze(1)] if len(p) > 0 else p for p in proposals]


def _sees_keypoint(proposals: Instances) -> Tensor:
    points, visibility = proposals.gt_keypoints.tensor[..., :2], proposals.gt_keypoints.tensor[..., 2]
    corners = proposals.proposal_boxes.tensor[:, None]  # (R, 1, 4)
    inside = (points >= corners[..., :2]) & (points <= corners[..., 2:])  # (R, K, 2)
    return torch.any(inside.all(dim=2) & (visibility >= 1), dim=1)
