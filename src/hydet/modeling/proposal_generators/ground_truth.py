"""Ground-truth boxes as additional proposals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from hydet.structures import Boxes, Instances

__all__ = ["add_ground_truth_to_proposals", "add_ground_truth_to_proposals_single_image"]

# Objectness logit of a ground-truth box: that of a probability of 1 - 1e-10, so it ranks first and is still finite.
GT_LOGIT = math.log((1.0 - 1e-10) / (1.0 - (1.0 - 1e-10)))


def add_ground_truth_to_proposals(
    gt: Sequence[Instances | Boxes], proposals: Sequence[Instances]
) -> list[Instances]:
    """Append the ground-truth boxes of each image to its proposals.

    Early in training, few proposals overlap an object enough to count as foreground. The ground-truth boxes always do,
    so the second stage has positive examples from the first step on.

    Args:
        gt: per image, ``Instances`` with ``gt_boxes``, or the boxes alone.
        proposals: per image, with ``proposal_boxes`` and usually ``objectness_logits``.

    Returns:
        Per image, new ``Instances``: the proposals, then the ground truth, with the fields of the proposals.

    Raises:
        ValueError: if the lengths differ, or proposals have another field that the ground truth lacks.
    """
    if len(gt) != len(proposals):
        raise ValueError(f"ground truth of {len(gt)} images, but proposals of {len(proposals)}")
    return [
        add_ground_truth_to_proposals_single_image(gt_i, proposals_i)
        for gt_i, proposals_i in zip(gt, proposals, strict=True)
    ]


def add_ground_truth_to_proposals_single_image(gt: Instances | Boxes, proposals: Instances) -> Instances:
    """Append the ground-truth boxes of one image to its proposals; see ``add_ground_truth_to_proposals``."""
    gt_fields = {"gt_boxes": gt} if isinstance(gt, Boxes) else gt.get_fields()
    boxes = gt_fields["gt_boxes"].to(proposals.proposal_boxes.device)
    fields = {}
    for name, value in proposals.get_fields().items():
        if name == "proposal_boxes":
            fields[name] = boxes
        elif name == "objectness_logits":
            fields[name] = torch.full(
                (boxes.tensor.shape[0],), GT_LOGIT, dtype=value.dtype, device=value.device
            )
        elif name in gt_fields:
            fields[name] = gt_fields[name]
        else:
            raise ValueError(
                f"proposals have a field {name!r} that the ground truth lacks; it has {list(gt_fields)}"
            )
    return Instances.cat([proposals, Instances(proposals.image_size, **fields)])
