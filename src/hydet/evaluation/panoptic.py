"""Panoptic quality: are the segments of things and stuff found, and how well."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table

from hydet.distributed import compute_on_main

from .blocks import percent, table_in_blocks
from .ground_truth import ground_truth_map, image_name

__all__ = ["PanopticEvaluator"]

QUALITIES = ("PQ", "SQ", "RQ")
GROUPS = {"": "all", "_th": "things", "_st": "stuff"}
IOU, TP, FP, FN = range(4)  # rows of what is summed for each category


class PanopticEvaluator:
    """Panoptic quality: how many segments are found (RQ), how well those overlap (SQ), and both together (PQ).

    A predicted segment and one of the ground truth match if their category is the same and their IoU above 0.5,
    where pixels that are void in the ground truth do not count as predicted. At most one pair of a segment does. Then
    with the matched pairs TP, the other predictions FP and the other segments of the ground truth FN, each category has
    SQ = mean IoU of TP (0 if there are none), RQ = TP / (TP + FP / 2 + FN / 2), and PQ = SQ * RQ. A crowd matches
    nothing and is no FN, and a prediction of which more than half lies in void or in crowds of its category is no FP.

    Metrics are ``panoptic/PQ``, ``/SQ`` and ``/RQ``, between 0 and 1, means over the categories that have any TP,
    FP or FN; with ``_th`` and ``_st`` over things and stuff alone. A mean over no category is NaN.

    Args:
        dataset: has ``metadata``: segments' ``category_id`` is an index into its ``thing_classes`` or, where
            ``isthing`` is false, into its ``stuff_classes``.

    Source: Kirillov et al. 2019 (arXiv:1801.00868), section 4.
    """

    def __init__(self, dataset: Any) -> None:
        self.metadata = dataset.metadata
        self.num_things = len(self.metadata.thing_classes)
        self.num_categories = self.num_things + len(self.metadata.stuff_classes)  # things first
        self.reset()

    def reset(self) -> None:
        """Forget all results."""
        self._sums = np.zeros((4, self.num_categories))
        self._num_images = 0
        self._tables: list[Any] = []

    def update(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Take one batch.

        Args:
            inputs: with ``ground_truth["panoptic_seg"]``, ``(H, W)`` segment ids, and
                ``ground_truth["segments_info"]``, for each segment a mapping with ``id``, ``category_id``,
                ``isthing`` and, for crowds, ``iscrowd``. Pixels of id 0, or of no listed segment, are void.
            outputs: with ``panoptic_seg``, a pair of ``(H, W)`` segment ids in the frame of the original image and
                segments with ``id``, ``category_id`` and ``isthing``; 0 is void. Segments without a pixel do not count.

        Raises:
            ValueError: if either is missing, sizes differ, an id is listed twice or a predicted one not at all, or a
                category is none of the dataset's.
        """
        for entry, output in zip(inputs, outputs, strict=True):
            if output.get("panoptic_seg") is None:
                raise ValueError(
                    f"{image_name(entry)}: the model gave {sorted(output)}, expected 'panoptic_seg' among them"
                )
            ids, info = output["panoptic_seg"]
            ids = ids.cpu().numpy()
            truth_ids = ground_truth_map(entry, "panoptic_seg", ids.shape)
            truth = self._segments(entry["ground_truth"].get("segments_info") or (), entry, "ground truth")
            found = self._segments(info or (), entry, "model")
            areas = _shared_areas(truth_ids, truth.ids, ids, found.ids, entry)
            self._sums += _image_sums(areas, truth, found, self.num_categories)
            self._num_images += 1

    def compute(self) -> dict[str, float]:
        """Merge the processes' counts and measure them.

        Raises:
            ValueError: if there are no results.
        """
        return compute_on_main((self._sums, self._num_images), self._measure)

    def tables(self) -> list[Any]:
        """A summary and the numbers of each category that occurs; empty before ``compute`` and on processes other
        than the main one."""
        return self._tables

    def _segments(self, info: Sequence[Mapping[str, Any]], entry: Mapping[str, Any], whose: str) -> _Segments:
        ids = np.array([segment["id"] for segment in info], dtype=np.int64)
        if len(np.unique(ids)) != len(ids) or (ids == 0).any():
            raise ValueError(
                f"{image_name(entry)}: segment ids of the {whose} must differ from one another and from 0, "
                f"got {ids.tolist()}"
            )
        categories = []
        for segment in info:
            limit = self.num_things if segment["isthing"] else self.num_categories - self.num_things
            if not 0 <= segment["category_id"] < limit:
                raise ValueError(
                    f"{image_name(entry)}: segment {segment['id']} of the {whose} has category "
                    f"{segment['category_id']} of {'things' if segment['isthing'] else 'stuff'}, "
                    f"of which the dataset has {limit}"
                )
            categories.append(segment["category_id"] + (0 if segment["isthing"] else self.num_things))
        crowds = np.array([bool(segment.get("iscrowd", False)) for segment in info], dtype=bool)
        order = np.argsort(ids)
        return _Segments(ids[order], np.array(categories, dtype=np.int64)[order], crowds[order])

    def _measure(self, parts: Sequence[tuple[np.ndarray, int]]) -> dict[str, float]:
        num_images = sum(number for _, number in parts)
        if not num_images:
            raise ValueError("no image was evaluated: the loader is empty")
        iou, tp, fp, fn = np.sum([sums for sums, _ in parts], axis=0)
        counted = tp + fp + fn > 0
        weight = np.where(counted, tp + (fp + fn) / 2, 1)
        each = {"PQ": iou / weight, "SQ": iou / np.maximum(tp, 1), "RQ": tp / weight}
        is_thing = np.arange(self.num_categories) < self.num_things
        members = {"": counted, "_th": counted & is_thing, "_st": counted & ~is_thing}
        metrics = {
            f"panoptic/{name}{suffix}": float(each[name][rows].mean()) if rows.any() else math.nan
            for suffix, rows in members.items()
            for name in QUALITIES
        }
        names = [*self.metadata.thing_classes, *self.metadata.stuff_classes]
        rows = [
            [names[i], *[percent(each[q][i]) for q in QUALITIES], *[f"{n[i]:.0f}" for n in (tp, fp, fn)]]
            for i in np.flatnonzero(counted)
        ]
        self._tables = [
            _summary_table(metrics, {s: int(rows.sum()) for s, rows in members.items()}),
            table_in_blocks("Each category in %", ["category", *QUALITIES, "TP", "FP", "FN"], rows),
        ]
        return metrics


class _Segments(NamedTuple):
    """Segments of one image by ascending id: ``(n,)`` each."""

    ids: np.ndarray
    categories: np.ndarray  # over things and stuff
    crowds: np.ndarray


def _shared_areas(
    truth: np.ndarray,
    truth_ids: np.ndarray,
    found: np.ndarray,
    found_ids: np.ndarray,
    entry: Mapping[str, Any],
) -> np.ndarray:
    """``(1 + G, 1 + P)`` pixels that each segment of the ground truth shares with each predicted one; void first."""
    truth, found = truth.reshape(-1), found.reshape(-1)
    if not truth.size:
        return np.zeros((1 + len(truth_ids), 1 + len(found_ids)), dtype=np.int64)
    # Neighbours mostly belong together: only where either map changes, every few dozen pixels, is there work.
    changes = (truth[1:] != truth[:-1]) | (found[1:] != found[:-1])
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
    lengths = np.diff(starts, append=truth.size)
    rows, _ = _places(truth[starts], truth_ids)
    columns, listed = _places(found[starts], found_ids)
    if not listed.all():
        raise ValueError(
            f"{image_name(entry)}: the model's panoptic_seg has segment {found[starts][~listed][0]}, "
            "which is not in its segments_info"
        )
    shape = (1 + len(truth_ids), 1 + len(found_ids))
    areas = np.bincount(rows * shape[1] + columns, weights=lengths, minlength=shape[0] * shape[1])
    return areas.astype(np.int64).reshape(shape)


def _places(values: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """1 + the index of each value in the ascending ``ids``, 0 where it is not there; whether it is there or 0."""
    if not len(ids):
        return np.zeros(len(values), dtype=np.int64), values == 0
    index = np.searchsorted(ids, values).clip(max=len(ids) - 1)
    there = ids[index] == values
    return np.where(there, index + 1, 0), there | (values == 0)


def _image_sums(areas: np.ndarray, truth: _Segments, found: _Segments, num_categories: int) -> np.ndarray:
    """``(4, C)``: for each category the sum of IoU of matched pairs, and the numbers of TP, FP and FN."""
    truth_area, found_area = areas[1:].sum(axis=1), areas[:, 1:].sum(axis=0)
    void, shared = areas[0, 1:], areas[1:, 1:]
    union = truth_area[:, None] + found_area - void - shared
    same = truth.categories[:, None] == found.categories
    # Doubled rather than halved: whole numbers, so exactly one half is no match on any machine.
    match = same & ~truth.crowds[:, None] & (2 * shared > union)
    rows, columns = match.nonzero()
    missed = ~match.any(axis=1) & ~truth.crowds & (truth_area > 0)
    excused = void + (shared * (same & truth.crowds[:, None])).sum(axis=0)
    wrong = ~match.any(axis=0) & (2 * excused <= found_area) & (found_area > 0)
    sums = np.zeros((4, num_categories))
    np.add.at(sums[IOU], truth.categories[rows], shared[rows, columns] / union[rows, columns])
    np.add.at(sums[TP], truth.categories[rows], 1)
    np.add.at(sums[FP], found.categories[wrong], 1)
    np.add.at(sums[FN], truth.categories[missed], 1)
    return sums


def _summary_table(metrics: Mapping[str, float], counts: Mapping[str, int]) -> Table:
    table = Table(title="Panoptic quality in %", title_justify="left")
    table.add_column("")
    for name in (*QUALITIES, "categories"):
        table.add_column(name, justify="right")
    for suffix, label in GROUPS.items():
        values = [percent(metrics[f"panoptic/{name}{suffix}"]) for name in QUALITIES]
        table.add_row(label, *values, str(counts[suffix]))
    return table
