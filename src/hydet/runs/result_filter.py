"""Selection of the objects of a result by score, class and number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor

from hydet.data import Metadata
from hydet.structures import Instances, ModelOutput, SegmentInfo

__all__ = ["ObjectFilter"]


class ObjectFilter:
    """Selects the objects of results, best first where their number is limited.

    Panoptic maps and semantic scores stay as they are, and proposals are only limited in number.

    Args:
        metadata: class names.
        score_threshold: lowest score; a mapping has one per class name, and keeps all objects of the other classes.
        classes: names or indices of the classes to keep; None keeps all.
        max_detections: largest number of objects per image; None for all.

    Raises:
        ValueError: if a threshold is outside [0, 1], a class is unknown, or the number is negative.
    """

    def __init__(
        self,
        metadata: Metadata,
        *,
        score_threshold: float | Mapping[str, float] | None = None,
        classes: Sequence[str | int] | None = None,
        max_detections: int | None = None,
    ) -> None:
        if max_detections is not None and max_detections < 0:
            raise ValueError(f"max_detections must not be negative, got {max_detections}")
        names = metadata.thing_classes
        thresholds = torch.zeros(len(names))
        if isinstance(score_threshold, Mapping):
            for name, threshold in score_threshold.items():
                thresholds[_index_of(name, names)] = _checked(threshold)
        elif score_threshold is not None:
            thresholds[:] = _checked(score_threshold)
        if classes is not None:
            if isinstance(classes, str):
                raise ValueError(f"classes is a list of names or indices, got {classes!r}")
            dropped = torch.ones(len(names), dtype=torch.bool)
            dropped[[_index_of(name, names) for name in classes]] = False
            thresholds[dropped] = math.inf
        self._thresholds = thresholds  # (K,)
        self._max_detections = max_detections
        self._selects_by_score = bool((thresholds > 0).any())

    def __call__(self, output: ModelOutput) -> ModelOutput:
        """Return the output with the selected objects, in their order; ``output`` is not changed."""
        key = "instances" if "instances" in output else "proposals"
        objects = cast("Instances | None", output.get(key))
        if objects is None or not (self._selects_by_score or self._max_detections is not None):
            return output
        keep = torch.arange(len(objects))
        scores: Tensor = objects.scores if key == "instances" else objects.objectness_logits
        if key == "instances" and self._selects_by_score:
            classes: Tensor = objects.pred_classes
            keep = keep[scores >= self._thresholds.to(scores.dtype)[classes]]
        if self._max_detections is not None and len(keep) > self._max_detections:
            best = scores[keep].argsort(descending=True, stable=True)[: self._max_detections]
            keep = keep[best.sort().values]
        selected = {**output, key: objects[keep]}
        if "panoptic_seg" in output and key == "instances":
            panoptic_map, segments = output["panoptic_seg"]
            selected["panoptic_seg"] = (panoptic_map, _renumbered(segments, keep))
        return cast("ModelOutput", selected)


def _renumbered(segments: Sequence[SegmentInfo], keep: Tensor) -> list[SegmentInfo]:
    """Return segments whose ``instance_id`` is the position of the object among those that remain, if it does."""
    positions = {index: position for position, index in enumerate(keep.tolist())}
    renumbered = []
    for segment in segments:
        changed = segment.copy()
        index = changed.pop("instance_id", None)
        if index in positions:
            changed["instance_id"] = positions[index]
        renumbered.append(changed)
    return renumbered


def _index_of(name: str | int, names: Sequence[str]) -> int:
    if isinstance(name, str) and name in names:
        return names.index(name)
    if isinstance(name, int) and not isinstance(name, bool) and 0 <= name < len(names):
        return name
    shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    raise ValueError(f"the model has no class {name!r}; its {len(names)} classes are: {shown}")


def _checked(threshold: float) -> float:
    if isinstance(threshold, bool) or not 0 <= threshold <= 1:
        raise ValueError(f"score_threshold must be a number in [0, 1], got {threshold!r}")
    return threshold
