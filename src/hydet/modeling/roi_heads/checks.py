"""Checks that the parts of ROI heads, and what they exchange, fit together."""

from __future__ import annotations

from collections.abc import Sequence

from hydet.structures import Instances

from .interfaces import BoxPredictor, RegionHead
from .mask_head import BaseMaskRCNNHead

__all__ = [
    "check_box_predictor",
    "check_given_boxes",
    "check_mask_head",
]


def check_box_predictor(predictor: BoxPredictor, num_classes: int) -> None:
    """Raise ``ValueError`` unless the box predictor has ``num_classes`` classes."""
    if predictor.num_classes != num_classes:
        raise ValueError(
            f"num_classes is {num_classes}, but box_predictor has {predictor.num_classes} classes"
        )


def check_mask_head(head: RegionHead, num_classes: int) -> None:
    """Raise ``ValueError`` if a mask head declares a number of classes that is neither ``num_classes`` nor 1."""
    declared = head.num_classes if isinstance(head, BaseMaskRCNNHead) else None
    if declared not in (None, 1, num_classes):
        raise ValueError(f"num_classes is {num_classes}, but mask_head has {declared} classes")


def check_given_boxes(instances: Sequence[Instances]) -> None:
    """Raise ``ValueError`` unless each image has ``pred_boxes`` and ``pred_classes``."""
    for i, instances_i in enumerate(instances):
        missing = [name for name in ("pred_boxes", "pred_classes") if not instances_i.has(name)]
        if missing:
            raise ValueError(f"given boxes need pred_boxes and pred_classes; image {i} lacks {missing}")
