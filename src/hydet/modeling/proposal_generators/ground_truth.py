"""Ground truth among the proposals, so that the second stage sees good boxes from the first step on."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from hydet.structures import Boxes, Instances

__all__ = ["add_ground_truth_to_proposals", "add_ground_truth_to_proposals_single_image"]

CERTAIN = math.log((1.0 - 1e-10) / (1.0 - (1.0 - 1e-10)))  # the logit of a probability of 1 - 1e-10


def add_ground_truth_to_proposals(
    gt: Sequence[Instances | Boxes], proposals: Sequence[Instances]
) -> list[Instances]:
    """Append each image's ground truth to its proposals.

    Args:
        gt: per image, ``Instances`` with ``gt_boxes``, or the boxes alone.
        proposals: per image, with ``proposal_boxes`` and usually ``objectness_logits``.

    Returns:
        Per image, new ``Instances``: the proposals, then the ground truth, with the fields of the proposals.

    Raises:
        ValueError: if there are not equally many, or proposals have another field that the ground truth lacks.
    """
    if len(gt) != len(proposals):
        raise ValueError(f"ground truth of {len(gt)} images, but proposals of {len(proposals)}")
    pairs = zip(gt, proposals, strict=True)
    return [add_ground_truth_to_proposals_single_image(truth, found) for truth, found in pairs]


def add_ground_truth_to_proposals_single_image(gt: Instances | Boxes, proposals: Instances) -> Instances:
    """``add_ground_truth_to_proposals`` for one image."""
    known = {"gt_boxes": gt} if isinstance(gt, Boxes) else gt.get_fields()
    boxes = known["gt_boxes"].to(proposals.proposal_boxes.device)
    fields = {}
    for name, value in proposals.get_fields().items():
        if name == "proposal_boxes":
            fields[name] = boxes
        elif name == "objectness_logits":
            fields[name] = torch.full(
                (boxes.tensor.shape[0],), CERTAIN, dtype=value.dtype, device=value.device
            )
        elif name in known:
            fields[name] = known[name]
        else:
            raise ValueError(
                f"proposals have a field {name!r} that the ground truth lacks; it has {list(known)}"
            )
    return Instances.cat([proposals, Instances(proposals.image_size, **fields)])
