"""Check before the first step that the data have the labels that a model needs, and name the models that fit."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from hydet.config import ConfigError
from hydet.data import DetectionDataset
from hydet.data.datasets.labels import Label
from hydet.modeling.protocols import Detector, Task

from .tasks import traits_of

__all__ = ["FITTING_DEFAULTS", "MissingLabelsError", "require_labels"]

# Task -> the labels that a model learns it from, beside boxes.
_LABELS_OF_TASK: Mapping[Task, frozenset[Label]] = {
    "mask": frozenset({"masks"}),
    "keypoints": frozenset({"keypoints"}),
    "rotated": frozenset({"rotated_boxes"}),
    "rotated_proposals": frozenset({"rotated_boxes"}),
    "semantic": frozenset({"semantic"}),
    "panoptic": frozenset({"masks", "semantic"}),
}
_NAMES: Mapping[Label, str] = {
    "masks": "masks",
    "keypoints": "keypoints",
    "rotated_boxes": "rotated boxes",
    "semantic": "semantic labels",
    "panoptic": "panoptic labels",
}
# One option in conf/model per kind of model -> the labels it needs.
_OPTIONS: Mapping[str, frozenset[Label]] = {
    "faster_rcnn_fpn": frozenset(),
    "mask_rcnn_fpn": _LABELS_OF_TASK["mask"],
    "keypoint_rcnn_fpn": _LABELS_OF_TASK["keypoints"],
    "rotated_faster_rcnn_fpn": _LABELS_OF_TASK["rotated"],
    "semantic_fpn": _LABELS_OF_TASK["semantic"],
    "panoptic_fpn": _LABELS_OF_TASK["panoptic"],
}
# Default model -> the one that replaces it if the user named none and the data have no masks.
FITTING_DEFAULTS: Mapping[str, str] = {"mask_rcnn_fpn": "faster_rcnn_fpn"}


class MissingLabelsError(ConfigError):
    """Data without labels that the model needs.

    Args:
        message: names the split, the labels, and the models that fit.
        labels: labels that are missing.
    """

    def __init__(self, message: str, labels: frozenset[Label]) -> None:
        super().__init__(message)
        self.labels = labels


def require_labels(model: nn.Module | Detector, dataset: DetectionDataset, split: str) -> None:
    """Check that data have the labels that a model needs, and let them handle objects that lack them.

    Args:
        model: its tasks determine the labels.
        dataset: not checked if it does not know its labels.
        split: ``"train"`` or another name, for messages; evaluation needs panoptic labels too.

    Raises:
        MissingLabelsError: if a kind of labels is missing.
        DataError: if an object lacks a label and the policy of the data is ``"raise"``.
    """
    tasks = traits_of(model).tasks
    needed: frozenset[Label] = frozenset().union(*(_LABELS_OF_TASK.get(task, frozenset()) for task in tasks))
    if "panoptic" in tasks and split != "train":
        needed |= {"panoptic"}
    if dataset.labels is not None and (missing := needed - dataset.labels):
        names = " and ".join(_NAMES[label] for label in _NAMES if label in missing)
        options = [f"model={name}" for name, labels in _OPTIONS.items() if labels <= dataset.labels]
        raise MissingLabelsError(
            f"the model needs {names}, but data.{split} has none; models that fit these data: {', '.join(options)}",
            missing,
        )
    dataset.require(needed)
