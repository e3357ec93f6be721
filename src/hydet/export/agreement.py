"""Comparison of the results of an exported model with those of the model itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hydet.structures import Instances, ModelOutput, pairwise_iou, pairwise_iou_rotated

__all__ = ["BOUNDS", "Agreement", "Bounds", "ExportMismatchError"]


class ExportMismatchError(ValueError):
    """The exported graph computes something else than the model."""


@dataclass(frozen=True)
class Bounds:
    """Largest differences between two sets of results.

    Attributes:
        boxes: in pixels, and in degrees.
        scores: of equal detections.
        masks: fraction of the pixels of a box that may differ, over all detections.
        keypoints: fraction of the keypoints that may move by more than one pixel.
        labels: fraction of the semantic labels that may differ.
        min_iou: if given, boxes are compared by their overlap instead.
        unmatched: fraction of the detections that may have no equal.
    """

    boxes: float = 1e-2
    scores: float = 1e-4
    masks: float = 1e-3
    keypoints: float = 1e-2
    labels: float = 1e-3
    min_iou: float | None = None
    unmatched: float = 0.0


_HALF = Bounds(scores=0.06, masks=0.05, keypoints=0.2, labels=0.05, min_iou=0.9, unmatched=0.1)
BOUNDS = {"fp32": Bounds(), "bf16": _HALF, "fp16": _HALF}


@dataclass
class Agreement:
    """Collects the largest differences over several batches.

    Args:
        bounds: what is accepted.
        score_threshold: lowest score of a detection of the model; None if all are kept.
        max_detections: largest number of detections per image; negative for all.
    """

    bounds: Bounds
    score_threshold: float | None
    max_detections: int
    num_detections: int = 0
    num_unmatched: int = 0
    box: float = 0.0
    score: float = 0.0
    mask_pixels: float = 0.0
    mask_differing: float = 0.0
    keypoints: int = 0
    keypoints_moved: int = 0
    labels: int = 0
    labels_differing: int = 0

    def add(self, expected: Sequence[ModelOutput], actual: Sequence[ModelOutput]) -> None:
        """Compare the results of a batch: those of the model, and those of the exported graph."""
        for ours, theirs in zip(expected, actual, strict=True):
            for name in ("instances", "proposals"):
                if name in ours:
                    self._add_instances(ours[name], theirs[name])
            if "sem_seg" in ours:
                labels, other_labels = (_labels(output["sem_seg"]) for output in (ours, theirs))
                self.labels += labels.numel()
                self.labels_differing += int((labels != other_labels).sum())

    def _add_instances(self, expected: Instances, actual: Instances) -> None:
        boxes = _boxes_of(expected)
        scores, other_scores = (_scores_of(instances) for instances in (expected, actual))
        self.num_detections += len(expected)
        rows, other_rows, distance = self._match(expected, actual)
        lost = [scores[i] for i in range(len(expected)) if i not in set(rows)]
        lost += [other_scores[i] for i in range(len(actual)) if i not in set(other_rows)]
        # Detections next to the threshold, or to the last of a full list, may drop out by rounding.
        is_full = 0 <= self.max_detections <= max(len(expected), len(actual))
        lowest = min([float(s) for s in (*scores, *other_scores)], default=0.0)
        threshold = -float("inf") if self.score_threshold is None else self.score_threshold
        limit = (lowest if is_full else threshold) + 2 * self.bounds.scores
        self.num_unmatched += sum(float(score) > limit for score in lost)
        if not rows:
            return
        self.box = max(self.box, float(distance.max()))
        self.score = max(self.score, float((scores[rows] - other_scores[other_rows]).abs().max()))
        if expected.has("pred_masks"):
            masks, other_masks = expected.pred_masks[rows], actual.pred_masks[other_rows]
            sides = boxes[rows, 2:] - boxes[rows, :2]
            self.mask_pixels += float(sides.prod(dim=1).sum())
            self.mask_differing += float((masks != other_masks).sum())
        if expected.has("pred_keypoints"):
            moved = expected.pred_keypoints[rows] - actual.pred_keypoints[other_rows]
            self.keypoints += moved.shape[0] * moved.shape[1]
            self.keypoints_moved += int((moved[..., :2].abs().amax(dim=2) > 1).sum())

    def _match(self, expected: Instances, actual: Instances) -> tuple[list[int], list[int], Tensor]:
        """Return rows of detections that belong together, the nearest first, and the distances of their boxes."""
        boxes, other_boxes = _boxes_of(expected), _boxes_of(actual)
        if boxes.shape[0] == 0 or other_boxes.shape[0] == 0:
            return [], [], boxes.new_zeros(0)
        distance = _distances(boxes, other_boxes)  # (R, S)
        score_difference = (_scores_of(expected)[:, None] - _scores_of(actual)[None]).abs()
        allowed = score_difference <= self.bounds.scores
        if expected.has("pred_classes"):
            allowed &= expected.pred_classes[:, None] == actual.pred_classes[None]
        if self.bounds.min_iou is None:
            allowed &= distance <= self.bounds.boxes
        else:
            overlap = pairwise_iou if boxes.shape[1] == 4 else pairwise_iou_rotated
            name = "pred_boxes" if expected.has("pred_boxes") else "proposal_boxes"
            allowed &= overlap(expected.get(name), actual.get(name)) >= self.bounds.min_iou
        ranked = torch.where(allowed, distance, torch.inf).flatten().argsort()
        rows: list[int] = []
        other_rows: list[int] = []
        for pair in ranked[: int(allowed.sum())].tolist():
            row, other_row = divmod(pair, allowed.shape[1])
            if row not in rows and other_row not in other_rows:
                rows.append(row)
                other_rows.append(other_row)
        return rows, other_rows, distance[rows, other_rows]

    def summary(self) -> dict[str, Any]:
        """Return the number of detections and the largest differences, for ``metadata.json``."""
        return {
            "detections": self.num_detections,
            "unmatched_detections": self.num_unmatched,
            "box_difference_pixels": self.box,
            "score_difference": self.score,
            "mask_pixels_differing": self.mask_differing / max(1.0, self.mask_pixels),
            "keypoints_moved": self.keypoints_moved / max(1, self.keypoints),
            "labels": self.labels,
            "labels_differing": self.labels_differing / max(1, self.labels),
        }

    def check(self, name: str) -> None:
        """Raise unless all differences are within the bounds.

        Args:
            name: of the export, for the message.

        Raises:
            ExportMismatchError: if they are not.
        """
        values, problems = self.summary(), []
        if self.num_unmatched > self.bounds.unmatched * self.num_detections:
            problems.append(f"{self.num_unmatched} of {self.num_detections} detections have no equal")
        for key, bound in (
            ("mask_pixels_differing", self.bounds.masks),
            ("keypoints_moved", self.bounds.keypoints),
            ("labels_differing", self.bounds.labels),
        ):
            if values[key] > bound:
                problems.append(f"{key} is {values[key]:.2g}, the bound {bound:g}")
        if problems:
            raise ExportMismatchError(
                f"{name} computes something else than the model, so it was not written: {'; '.join(problems)}"
            )


def _boxes_of(instances: Instances) -> Tensor:
    boxes: Tensor = instances.get("pred_boxes" if instances.has("pred_boxes") else "proposal_boxes").tensor
    return boxes


def _scores_of(instances: Instances) -> Tensor:
    scores: Tensor = instances.get("scores" if instances.has("scores") else "objectness_logits")
    return scores


def _distances(boxes: Tensor, other_boxes: Tensor) -> Tensor:
    """Return the largest difference of a coordinate of all pairs; angles wrap around."""
    difference = (boxes[:, None] - other_boxes[None]).abs()
    if boxes.shape[1] == 5:
        angle = difference[..., 4].remainder(360)
        difference[..., 4] = torch.minimum(angle, 360 - angle)
    return difference.amax(dim=2)


def _labels(scores: Any) -> Tensor:
    labels: Tensor = scores.argmax(dim=0)
    return labels
