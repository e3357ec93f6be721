"""What a model predicts decides which labels it is given, how it is measured, and which number counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

__all__ = ["IOU_TYPES", "MEASURED_BY", "needs_proposals", "primary_metric", "tasks_of"]

# Task -> the number by which two models are compared.
_PRIMARY: Mapping[str, str] = {
    "box": "box/AP",
    "rotated": "rotated/AP",
    "semantic": "semantic/mIoU",
    "panoptic": "panoptic/PQ",
    "proposals": "proposals/AR100",
    "rotated_proposals": "proposals/AR100",
}
# Task -> its key in conf/evaluators/*.yaml.
MEASURED_BY: Mapping[str, str] = {
    "box": "instances",
    "mask": "instances",
    "keypoints": "instances",
    "rotated": "rotated",
    "semantic": "semantic",
    "panoptic": "panoptic",
    "proposals": "proposals",
    "rotated_proposals": "proposals",
}
IOU_TYPES: Mapping[str, str] = {"box": "bbox", "mask": "segm", "keypoints": "keypoints"}


def tasks_of(model: nn.Module) -> tuple[str, ...]:
    """What a model predicts, as it says itself in ``tasks``; see ``hydet.modeling.MetaArchitecture.tasks``."""
    return tuple(getattr(model, "tasks", ("box",)))


def primary_metric(model: nn.Module) -> str:
    """The metric that decides which of two checkpoints is better, and that a sweep maximises."""
    return next((_PRIMARY[task] for task in tasks_of(model) if task in _PRIMARY), "val_loss/total")


def needs_proposals(model: Any) -> bool:
    """Whether proposals must come with the data ("Fast R-CNN")."""
    return hasattr(model, "roi_heads") and getattr(model, "proposal_generator", True) is None
