"""Average recall of object proposals."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from rich.table import Table

from hydet.data.datasets.dataset import as_detection_dataset
from hydet.structures import ModelInput, ModelOutput

from .average_precision import average_recall
from .ground_truth_maps import image_name
from .ground_truth_objects import (
    GroundTruthObjects,
    box_areas,
    box_overlaps,
    iou_thresholds,
    objects_by_image,
)
from .matching import AREA_RANGES, ImageOverlaps, match
from .per_image_evaluator import PerImageEvaluator
from .terminal_tables import compact_table, format_percent

if TYPE_CHECKING:
    from hydet.data.datasets.dataset import RecordSource

__all__ = ["ProposalEvaluator"]

SIZES = ("", "s", "m", "l")  # in the order of AREA_RANGES


@dataclasses.dataclass
class _Proposals:
    """The D best proposals of one image."""

    boxes: np.ndarray  # (D, 4) xyxy or (D, 5) rotated
    scores: np.ndarray  # (D,) float64


class ProposalEvaluator(PerImageEvaluator[_Proposals]):
    """Average recall of class-agnostic boxes: the fraction of objects that they cover, averaged over IoU 0.50 to 0.95.

    Metrics are, for each limit such as 100, ``proposals/AR100`` and ``/AR100s``, ``/AR100m``, ``/AR100l`` of objects
    with an area below 32², from 32² to 96², and above, in square pixels. Values lie between 0 and 1; a metric without
    objects is NaN. Pairs of a proposal and an object are matched in descending order of IoU, as detectron2 does; see
    ``match_by``. Crowds do not count as objects. Only images that the evaluator received count, also those without
    proposals.

    Args:
        dataset: dataset with ``metadata`` and ``to_coco()``, the ground truth in COCO's format. Rotated proposals are
            compared with its ``rotated_bbox``.
        limits: numbers of proposals per image to evaluate.
        match_by: ``"overlap"``, or ``"score"`` for COCO's rule without classes: in descending order of
            ``objectness_logits``, each proposal is matched to the unmatched object with the highest IoU. This gives
            lower values where objects overlap.

    Raises:
        ValueError: if there are no limits, one is not positive, or ``match_by`` is unknown.
    """

    def __init__(
        self,
        dataset: RecordSource,
        *,
        limits: Sequence[int] = (100, 1000),
        match_by: Literal["overlap", "score"] = "overlap",
    ) -> None:
        super().__init__()
        if match_by not in ("overlap", "score"):
            raise ValueError(f"match_by must be 'overlap' or 'score', got {match_by!r}")
        self.match_by = match_by
        if not limits or min(limits) < 1:
            raise ValueError(f"limits must be one or more positive numbers of proposals, got {limits}")
        self.dataset = as_detection_dataset(dataset)
        self.metadata = self.dataset.metadata
        self.limits = tuple(limits)
        self._objects: dict[bool, dict[int, GroundTruthObjects]] = {}  # rotated -> image id -> objects

    def _collect(self, entry: ModelInput, output: ModelOutput) -> _Proposals:
        if "proposals" not in output:
            raise ValueError(
                f"{image_name(entry)}: the model returned {sorted(output)}, expected 'proposals'"
            )
        proposals = output["proposals"]
        boxes = proposals.proposal_boxes.tensor.detach().float().cpu().numpy()
        scores = proposals.objectness_logits.detach().double().cpu().numpy()
        best = np.argsort(-scores, kind="stable")[: max(self.limits)]
        return _Proposals(boxes[best], scores[best])

    def _compute(self, results: Mapping[int, _Proposals]) -> dict[str, float]:
        box_dims = {proposals.boxes.shape[1] for proposals in results.values()}
        if len(box_dims) > 1:
            raise ValueError("some proposals are upright boxes and others rotated boxes")
        rotated = box_dims == {5}
        if rotated not in self._objects:
            self._objects[rotated] = objects_by_image(
                self.dataset.to_coco(), self.metadata.thing_ids, rotated=rotated
            )
        objects = self._objects[rotated]
        self._check_images(results, objects)
        pairs = [(proposals, objects[image_id]) for image_id, proposals in results.items()]
        if self.match_by == "score":
            overlaps = [_class_agnostic_overlaps(*pair) for pair in pairs]
            matching = match(overlaps, thresholds=iou_thresholds(rotated))
            recalls = {limit: average_recall(matching, limit).tolist() for limit in self.limits}
        else:
            recalls = _recalls_by_overlap(pairs, self.limits, iou_thresholds(rotated))
        metrics = {
            f"proposals/AR{limit}{size}": value
            for limit, values in recalls.items()
            for size, value in zip(SIZES, values, strict=True)
        }
        self._tables = [_recall_table(recalls, len(results))]
        return metrics


def _recalls_by_overlap(
    pairs: Sequence[tuple[_Proposals, GroundTruthObjects]], limits: Sequence[int], thresholds: np.ndarray
) -> dict[int, list[float]]:
    """Return the average recall by limit and size, with the best pairs matched first."""
    covered: dict[int, list[list[np.ndarray]]] = {limit: [[] for _ in SIZES] for limit in limits}
    for proposals, objects in pairs:
        overlaps = box_overlaps(proposals.boxes, objects)  # (D, G)
        for a, (smallest, largest) in enumerate(AREA_RANGES):
            is_counted = ~objects.crowd & (objects.areas >= smallest) & (objects.areas <= largest)
            for limit in limits:
                covered[limit][a].append(_best_pairs(overlaps[:limit, is_counted]))
    recalls: dict[int, list[float]] = {}
    for limit, by_size in covered.items():
        values = [np.concatenate(parts) if parts else np.zeros(0) for parts in by_size]
        recalls[limit] = [
            float((ious[:, None] >= thresholds).mean()) if len(ious) else math.nan for ious in values
        ]
    return recalls


def _best_pairs(overlaps: np.ndarray) -> np.ndarray:
    """Match proposals to objects greedily by overlap; return the IoU of each object, 0 without a proposal.

    Args:
        overlaps: ``(D, G)`` IoU.
    """
    num_proposals, num_objects = overlaps.shape
    covered = np.zeros(num_objects, dtype=overlaps.dtype)
    if not num_proposals:
        return covered
    free = overlaps.copy()
    best = free.argmax(axis=0)  # of each object
    value = free.max(axis=0)
    for _ in range(min(num_proposals, num_objects)):
        chosen = int(value.argmax())
        covered[chosen] = value[chosen]
        row = best[chosen]
        free[row] = -1
        free[:, chosen] = -1
        stale = best == row  # their proposal is taken
        best[stale], value[stale] = free[:, stale].argmax(axis=0), free[:, stale].max(axis=0)
        value[chosen] = -1
    return covered


def _class_agnostic_overlaps(proposals: _Proposals, objects: GroundTruthObjects) -> ImageOverlaps:
    return ImageOverlaps(
        classes=np.zeros(len(proposals.boxes), dtype=np.int64),
        scores=proposals.scores,
        areas=box_areas(proposals.boxes),
        gt_classes=np.zeros(len(objects.classes), dtype=np.int64),
        gt_areas=objects.areas,
        gt_crowd=objects.crowd,
        overlaps=box_overlaps(proposals.boxes, objects),
    )


def _recall_table(recalls: Mapping[int, Sequence[float]], num_images: int) -> Table:
    rows = [[str(limit), *[format_percent(value) for value in values]] for limit, values in recalls.items()]
    columns = ["limit", *[f"AR{size}" for size in SIZES]]
    return compact_table(f"Recall of proposals in %, {num_images} images", columns, rows)
