"""Properties that a model declares, and its evaluators and main metric, which follow from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import nn

from hydet.modeling.protocols import Detector, Task

__all__ = ["EVALUATOR_OF_TASK", "IOU_TYPES", "ModelTraits", "primary_metric", "traits_of"]

# Task -> the metric by which two models are compared.
_PRIMARY_METRICS: Mapping[str, str] = {
    "box": "box/AP",
    "rotated": "rotated/AP",
    "semantic": "semantic/mIoU",
    "panoptic": "panoptic/PQ",
    "proposals": "proposals/AR100",
    "rotated_proposals": "proposals/AR100",
}
# Task -> its key in conf/evaluators/*.yaml.
EVALUATOR_OF_TASK: Mapping[str, str] = {
    "box": "instances",
    "mask": "instances",
    "keypoints": "instances",
    "rotated": "rotated",
    "semantic": "semantic",
    "panoptic": "panoptic",
    "proposals": "proposals",
    "rotated_proposals": "proposals",
}
# Task -> its name in COCO's evaluation.
IOU_TYPES: Mapping[str, str] = {"box": "bbox", "mask": "segm", "keypoints": "keypoints"}


class ModelTraits(NamedTuple):
    """Properties of a model on which the data and the evaluation of a run depend.

    Attributes:
        tasks: what the model predicts, most important first.
        input_format: channel order of its input, ``"RGB"`` or ``"BGR"``.
        needs_proposals: True if proposals come with the data ("Fast R-CNN").
    """

    tasks: tuple[Task, ...] = ("box",)
    input_format: str = "RGB"
    needs_proposals: bool = False


def traits_of(model: nn.Module | Detector) -> ModelTraits:
    """Return what a model declares, and the defaults of ``ModelTraits`` for what it does not.

    This function is the only place that fills in defaults. A ``MetaArchitecture`` declares everything; a user's own
    ``nn.Module`` may declare nothing, and then predicts boxes in RGB images.
    """
    if isinstance(model, Detector):
        return ModelTraits(tuple(model.tasks), model.input_format or "RGB", model.needs_proposals)
    defaults = ModelTraits()
    return ModelTraits(
        tasks=tuple(getattr(model, "tasks", defaults.tasks)),
        input_format=getattr(model, "input_format", None) or defaults.input_format,
        needs_proposals=bool(getattr(model, "needs_proposals", defaults.needs_proposals)),
    )


def primary_metric(model: nn.Module | Detector) -> str:
    """Return the metric that selects the better of two checkpoints, and that a sweep maximizes."""
    tasks = traits_of(model).tasks
    return next((_PRIMARY_METRICS[task] for task in tasks if task in _PRIMARY_METRICS), "val_loss/total")
