"""Panoptic quality of things and stuff."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from rich.console import RenderableType
from rich.table import Table

from hydet.data.datasets.dataset import as_detection_dataset
from hydet.distributed import compute_on_main
from hydet.structures import ModelInput, ModelOutput, SegmentInfo

from .ground_truth_maps import ground_truth_map, image_name
from .terminal_tables import BlockTable, compact_table, format_percent

if TYPE_CHECKING:
    from hydet.data.datasets.dataset import RecordSource

__all__ = ["PanopticEvaluator"]

QUALITIES = ("PQ", "SQ", "RQ")
GROUPS = {"": "all", "_th": "things", "_st": "stuff"}
IOU, TP, FP, FN = range(4)  # rows of the sums per category


@dataclasses.dataclass
class _Counts:
    """Sums of one process.

    Attributes:
        sums: ``(4, C)`` per category: the summed IoU of matched pairs, and the numbers of TP, FP and FN.
        num_images: number of images.
    """

    sums: np.ndarray
    num_images: int = 0


class PanopticEvaluator:
    """Panoptic quality: the fraction of segments found (RQ), how well they overlap (SQ), and the product (PQ).

    A predicted segment and a ground-truth segment match if their categories agree and their IoU is above 0.5, where
    pixels that are void in the ground truth do not count as predicted. A segment has at most one match, since two
    segments cannot both overlap it by more than half. With the matched pairs TP, the other predictions FP and the other
    ground-truth segments FN, each category has SQ = mean IoU of TP (0 if there are none),
    RQ = TP / (TP + FP / 2 + FN / 2), and PQ = SQ * RQ. Crowds have no matches and are not counted as FN. A prediction
    with more than half of its pixels in void, or in crowds of its category, is not counted as FP.

    Metrics are ``panoptic/PQ``, ``/SQ`` and ``/RQ``, between 0 and 1, as means over the categories with any TP, FP or
    FN; the suffixes ``_th`` and ``_st`` select things and stuff. A mean over no category is NaN.

    Args:
        dataset: dataset with ``metadata``. The ``category_id`` of a segment is an index into its ``thing_classes`` or,
            if ``isthing`` is False, into its ``stuff_classes``.

    Source: Kirillov et al. 2019 (arXiv:1801.00868), section 4.
    """

    def __init__(self, dataset: RecordSource) -> None:
        self.metadata = as_detection_dataset(dataset).metadata
        self.num_things = len(self.metadata.thing_classes)
        self.num_categories = self.num_things + len(self.metadata.stuff_classes)  # things first
        self.reset()

    takes_roi_masks = True

    def reset(self) -> None:
        """Discard all results."""
        self._counts = _Counts(np.zeros((4, self.num_categories)))
        self._tables: list[RenderableType] = []

    def update(self, inputs: Sequence[ModelInput], outputs: Sequence[ModelOutput]) -> None:
        """Add the inputs and results of one batch.

        Args:
            inputs: model inputs with ``ground_truth["panoptic_seg"]``, ``(H, W)`` segment ids, and
                ``ground_truth["segments_info"]``, one dict per segment with ``id``, ``category_id``, ``isthing`` and,
                for crowds, ``iscrowd``. Pixels of id 0, or of a segment that is not listed, are void.
            outputs: results with ``panoptic_seg``: ``(H, W)`` segment ids in the frame of the original image, and
                segments with ``id``, ``category_id`` and ``isthing``. Id 0 is void. Segments without pixels do not
                count.

        Raises:
            ValueError: if either is missing, sizes differ, an id is listed twice, a predicted id is not listed, or a
                category is not in the dataset.
        """
        for entry, output in zip(inputs, outputs, strict=True):
            if output.get("panoptic_seg") is None:
                raise ValueError(
                    f"{image_name(entry)}: the model returned {sorted(output)}, expected 'panoptic_seg'"
                )
            segmentation, pred_info = output["panoptic_seg"]
            pred_ids = segmentation.cpu().numpy()
            gt_ids = ground_truth_map(entry, "panoptic_seg", pred_ids.shape)
            gt_info = entry["ground_truth"].get("segments_info") or ()
            gt_segments = self._segments(gt_info, entry, "ground truth")
            pred_segments = self._segments(pred_info or (), entry, "model")
            areas = _shared_areas(gt_ids, gt_segments.ids, pred_ids, pred_segments.ids, entry)
            self._counts.sums += _image_sums(areas, gt_segments, pred_segments, self.num_categories)
            self._counts.num_images += 1

    def compute(self) -> dict[str, float]:
        """Merge the counts of all processes and compute metrics.

        Raises:
            ValueError: if there are no results.
        """
        return compute_on_main(self._counts, self._compute)

    def tables(self) -> list[RenderableType]:
        """Return a summary and the values of each category; empty before ``compute`` and on other processes."""
        return self._tables

    def _segments(self, info: Sequence[SegmentInfo], entry: ModelInput, source: str) -> _Segments:
        ids = np.array([segment["id"] for segment in info], dtype=np.int64)
        if len(np.unique(ids)) != len(ids) or (ids == 0).any():
            raise ValueError(
                f"{image_name(entry)}: segment ids of the {source} must differ from one another and from 0, "
                f"got {ids.tolist()}"
            )
        categories = []
        for segment in info:
            limit = self.num_things if segment["isthing"] else self.num_categories - self.num_things
            if not 0 <= segment["category_id"] < limit:
                raise ValueError(
                    f"{image_name(entry)}: segment {segment['id']} of the {source} has category "
                    f"{segment['category_id']} of {'things' if segment['isthing'] else 'stuff'}, "
                    f"of which the dataset has {limit}"
                )
            categories.append(segment["category_id"] + (0 if segment["isthing"] else self.num_things))
        crowds = np.array([bool(segment.get("iscrowd", False)) for segment in info], dtype=bool)
        order = np.argsort(ids)
        return _Segments(ids[order], np.array(categories, dtype=np.int64)[order], crowds[order])

    def _compute(self, parts: Sequence[_Counts]) -> dict[str, float]:
        if not sum(part.num_images for part in parts):
            raise ValueError("no image was evaluated: the loader is empty")
        iou, tp, fp, fn = np.sum([part.sums for part in parts], axis=0)
        counted = tp + fp + fn > 0
        weight = np.where(counted, tp + (fp + fn) / 2, 1)
        qualities = {"PQ": iou / weight, "SQ": iou / np.maximum(tp, 1), "RQ": tp / weight}
        is_thing = np.arange(self.num_categories) < self.num_things
        members = {"": counted, "_th": counted & is_thing, "_st": counted & ~is_thing}
        metrics = {
            f"panoptic/{name}{suffix}": float(qualities[name][rows].mean()) if rows.any() else math.nan
            for suffix, rows in members.items()
            for name in QUALITIES
        }
        names = [*self.metadata.thing_classes, *self.metadata.stuff_classes]
        rows = [
            [
                names[i],
                *[format_percent(qualities[name][i]) for name in QUALITIES],
                *[f"{n[i]:.0f}" for n in (tp, fp, fn)],
            ]
            for i in np.flatnonzero(counted)
        ]
        self._tables = [
            _summary_table(metrics, {suffix: int(rows.sum()) for suffix, rows in members.items()}),
            BlockTable("Categories in %", ["category", *QUALITIES, "TP", "FP", "FN"], rows),
        ]
        return metrics


class _Segments(NamedTuple):
    """The n segments of an image, by ascending id."""

    ids: np.ndarray  # (n,)
    categories: np.ndarray  # (n,) over things and stuff
    crowds: np.ndarray  # (n,) bool


def _shared_areas(
    gt_map: np.ndarray,
    gt_ids: np.ndarray,
    pred_map: np.ndarray,
    pred_ids: np.ndarray,
    entry: ModelInput,
) -> np.ndarray:
    """Return the ``(1 + G, 1 + P)`` numbers of pixels that ground-truth and predicted segments share; void is first."""
    gt_map, pred_map = gt_map.reshape(-1), pred_map.reshape(-1)
    shape = (1 + len(gt_ids), 1 + len(pred_ids))
    if not gt_map.size:
        return np.zeros(shape, dtype=np.int64)
    # Neighboring pixels mostly belong to the same segments. Work on runs, which last a few dozen pixels.
    changes = (gt_map[1:] != gt_map[:-1]) | (pred_map[1:] != pred_map[:-1])
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
    lengths = np.diff(starts, append=gt_map.size)
    rows, _ = _segment_indices(gt_map[starts], gt_ids)
    columns, is_listed = _segment_indices(pred_map[starts], pred_ids)
    if not is_listed.all():
        raise ValueError(
            f"{image_name(entry)}: the model's panoptic_seg has segment {pred_map[starts][~is_listed][0]}, "
            "which is not in its segments_info"
        )
    areas = np.bincount(rows * shape[1] + columns, weights=lengths, minlength=shape[0] * shape[1])
    return areas.astype(np.int64).reshape(shape)


def _segment_indices(values: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return 1 + the index of each value in the ascending ``ids``, and True for values that are in ``ids`` or 0.

    The index of a value that is not in ``ids`` is 0, that of void.
    """
    if not len(ids):
        return np.zeros(len(values), dtype=np.int64), values == 0
    index = np.searchsorted(ids, values).clip(max=len(ids) - 1)
    is_in_ids = ids[index] == values
    return np.where(is_in_ids, index + 1, 0), is_in_ids | (values == 0)


def _image_sums(areas: np.ndarray, gt: _Segments, pred: _Segments, num_categories: int) -> np.ndarray:
    """Return the ``(4, C)`` sums of one image; see ``_Counts``."""
    gt_area, pred_area = areas[1:].sum(axis=1), areas[:, 1:].sum(axis=0)
    void, shared = areas[0, 1:], areas[1:, 1:]
    union = gt_area[:, None] + pred_area - void - shared
    same_category = gt.categories[:, None] == pred.categories
    # IoU > 0.5 in integers, so that rounding cannot turn an IoU of exactly one half into a match.
    match = same_category & ~gt.crowds[:, None] & (2 * shared > union)
    rows, columns = match.nonzero()
    false_negative = ~match.any(axis=1) & ~gt.crowds & (gt_area > 0)
    ignored_area = void + (shared * (same_category & gt.crowds[:, None])).sum(axis=0)
    false_positive = ~match.any(axis=0) & (2 * ignored_area <= pred_area) & (pred_area > 0)
    sums = np.zeros((4, num_categories))
    np.add.at(sums[IOU], gt.categories[rows], shared[rows, columns] / union[rows, columns])
    np.add.at(sums[TP], gt.categories[rows], 1)
    np.add.at(sums[FP], pred.categories[false_positive], 1)
    np.add.at(sums[FN], gt.categories[false_negative], 1)
    return sums


def _summary_table(metrics: Mapping[str, float], counts: Mapping[str, int]) -> Table:
    rows = []
    for suffix, label in GROUPS.items():
        values = [format_percent(metrics[f"panoptic/{name}{suffix}"]) for name in QUALITIES]
        rows.append([label, *values, str(counts[suffix])])
    return compact_table("Panoptic quality in %", ["", *QUALITIES, "categories"], rows)
