"""How many objects the proposals cover."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from .average_precision import average_recall
from .blocks import percent
from .ground_truth import image_name
from .matching import ImageOverlaps, match
from .per_image import PerImageEvaluator
from .truth_objects import TruthObjects, box_areas, box_overlaps, iou_thresholds, objects_by_image

__all__ = ["ProposalEvaluator"]

SIZES = ("", "s", "m", "l")  # in the order of AREA_RANGES


class ProposalEvaluator(PerImageEvaluator):
    """Average recall of class-agnostic boxes: the fraction of objects found, averaged over IoU 0.50 to 0.95.

    Metrics are, for each limit such as 100, ``proposals/AR100`` and ``/AR100s``, ``/AR100m``, ``/AR100l`` of objects
    below 32², below 96² and above, between 0 and 1; NaN without any object to measure on. They are COCO's average
    recall with classes left aside: by descending ``objectness_logits`` each proposal takes the free object that it
    overlaps most. Crowds count as no object. Only images that were seen count.

    Args:
        dataset: has ``metadata`` and ``to_coco()``, ground truth in COCO's format; rotated proposals are compared with
            its ``rotated_bbox``.
        limits: how many proposals of an image may be used.

    Raises:
        ValueError: if there are no limits, or any is not positive.
    """

    def __init__(self, dataset: Any, *, limits: Sequence[int] = (100, 1000)) -> None:
        if not limits or min(limits) < 1:
            raise ValueError(f"limits must be one or more positive numbers of proposals, got {limits}")
        self.dataset = dataset
        self.metadata = dataset.metadata
        self.limits = tuple(limits)
        self._truth: dict[bool, dict[Any, TruthObjects]] = {}
        super().__init__()

    def _collect(self, entry: Mapping[str, Any], output: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        if "proposals" not in output:
            raise ValueError(
                f"{image_name(entry)}: the model gave {sorted(output)}, expected 'proposals' among them"
            )
        found = output["proposals"]
        boxes = found.proposal_boxes.tensor.detach().float().cpu().numpy()
        scores = found.objectness_logits.detach().double().cpu().numpy()
        kept = np.argsort(-scores, kind="stable")[: max(self.limits)]
        return boxes[kept], scores[kept]

    def _measure(self, results: dict[Any, tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
        widths = {boxes.shape[1] for boxes, _ in results.values()}
        if len(widths) > 1:
            raise ValueError("some proposals are upright boxes and others rotated ones")
        rotated = widths == {5}
        if rotated not in self._truth:
            self._truth[rotated] = objects_by_image(
                self.dataset.to_coco(), self.metadata.thing_ids, rotated=rotated
            )
        objects = self._truth[rotated]
        self._check_images(results, objects)
        overlaps = []
        for image, (boxes, scores) in results.items():
            truth = objects[image]
            overlaps.append(
                ImageOverlaps(
                    classes=np.zeros(len(boxes), dtype=np.int64),
                    scores=scores,
                    areas=box_areas(boxes),
                    gt_classes=np.zeros(len(truth.classes), dtype=np.int64),
                    gt_areas=truth.areas,
                    gt_crowd=truth.crowd,
                    overlaps=box_overlaps(boxes, truth),
                )
            )
        matching = match(overlaps, thresholds=iou_thresholds(rotated))
        recalls = {limit: average_recall(matching, limit).tolist() for limit in self.limits}
        metrics = {
            f"proposals/AR{limit}{size}": value
            for limit, values in recalls.items()
            for size, value in zip(SIZES, values, strict=True)
        }
        self._tables = [_recall_table(recalls, len(results))]
        return metrics


def _recall_table(recalls: Mapping[int, Sequence[float]], num_images: int) -> Table:
    table = Table(title=f"Recall of proposals in %, {num_images} images", title_justify="left")
    for name in ("limit", *[f"AR{size}" for size in SIZES]):
        table.add_column(name, justify="right")
    for limit, values in recalls.items():
        table.add_row(str(limit), *[percent(value) for value in values])
    return table
