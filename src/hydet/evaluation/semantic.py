"""IoU and accuracy of semantic segmentation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from rich.console import RenderableType
from rich.table import Table

from hydet.data.datasets.dataset import as_detection_dataset
from hydet.distributed import compute_on_main
from hydet.structures import ModelInput, ModelOutput, semantic_labels

from .ground_truth_maps import ground_truth_map, image_name
from .terminal_tables import BlockTable, compact_table, format_percent

if TYPE_CHECKING:
    from hydet.data.datasets.dataset import RecordSource

__all__ = ["SemanticEvaluator"]

METRICS = ("mIoU", "fwIoU", "mACC", "pACC")


@dataclasses.dataclass
class _Counts:
    """Pixel counts of one process."""

    confusion: np.ndarray | None = (
        None  # (K, K) pixels, ground truth x prediction; None before the first image
    )
    num_images: int = 0


class SemanticEvaluator:
    """Intersection over union and accuracy of semantic labels, from one confusion matrix over all images.

    With TP the correctly labeled pixels of a class, T its pixels in the ground truth and P its predicted pixels, the
    metrics, between 0 and 1, are

    - ``semantic/mIoU``: mean of TP / (T + P - TP) over the classes in the ground truth, as detectron2 computes it; see
      ``count_predicted_only``;
    - ``semantic/fwIoU``: the same mean weighted by T, so that classes that are only predicted have no weight;
    - ``semantic/mACC``: mean of TP / T over the classes in the ground truth;
    - ``semantic/pACC``: fraction of correctly labeled pixels.

    Pixels without a label (``ignore_value``) do not count, whatever the prediction. Without any labeled pixel, all
    metrics are NaN.

    Args:
        dataset: dataset with ``metadata``, whose ``stuff_classes`` name the labels; without names, labels are numbers.
        ignore_value: label of pixels that do not count.
        count_predicted_only: True also counts a class that occurs in predictions only, with an IoU of 0, in mIoU.
            Other tools define mIoU like this; the values differ if the evaluated images lack some classes.
    """

    def __init__(
        self, dataset: RecordSource, *, ignore_value: int = 255, count_predicted_only: bool = False
    ) -> None:
        self.metadata = as_detection_dataset(dataset).metadata
        self.ignore_value = ignore_value
        self.count_predicted_only = count_predicted_only
        self._counts = _Counts()
        self._tables: list[RenderableType] = []

    takes_roi_masks = True

    def reset(self) -> None:
        """Discard all results."""
        self._counts = _Counts()
        self._tables = []

    def update(self, inputs: Sequence[ModelInput], outputs: Sequence[ModelOutput]) -> None:
        """Add the inputs and results of one batch.

        Args:
            inputs: model inputs with ``ground_truth["sem_seg"]``, ``(H, W)`` labels.
            outputs: results with ``sem_seg``, ``(K, H, W)`` scores in the frame of the original image, or
                ``SemanticScores``.

        Raises:
            ValueError: if either is missing, or sizes or numbers of classes differ.
        """
        for entry, output in zip(inputs, outputs, strict=True):
            if "sem_seg" not in output:
                raise ValueError(
                    f"{image_name(entry)}: the model returned {sorted(output)}, expected 'sem_seg'"
                )
            scores = output["sem_seg"]
            num_classes = self._check_classes(entry, scores.shape)
            predicted = semantic_labels(scores).cpu().numpy()
            labels = ground_truth_map(entry, "sem_seg", predicted.shape)
            self._count(entry, labels, predicted, num_classes)

    def compute(self) -> dict[str, float]:
        """Merge the counts of all processes and compute metrics.

        Raises:
            ValueError: if there are no results, or processes received different numbers of classes.
        """
        return compute_on_main(self._counts, self._compute)

    def tables(self) -> list[RenderableType]:
        """Return a summary and the values of each class; empty before ``compute`` and on other processes."""
        return self._tables

    def _check_classes(self, entry: ModelInput, shape: Sequence[int]) -> int:
        """Return K if it agrees with the dataset and with earlier images."""
        confusion, num_names = self._counts.confusion, len(self.metadata.stuff_classes)
        expected = num_names if confusion is None else len(confusion)
        if len(shape) != 3 or shape[0] == 0 or (expected and shape[0] != expected):
            raise ValueError(
                f"{image_name(entry)}: the model's sem_seg has shape {tuple(shape)}, expected "
                f"({expected or 'classes'}, height, width)"
                f"{' for the stuff_classes of the dataset' if num_names else ''}"
            )
        return int(shape[0])

    def _count(self, entry: ModelInput, labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> None:
        is_labeled = labels != self.ignore_value
        gt_labels = labels[is_labeled].astype(np.int64)
        if gt_labels.size and not (gt_labels.min() >= 0 and gt_labels.max() < num_classes):
            invalid = gt_labels[(gt_labels < 0) | (gt_labels >= num_classes)][0]
            raise ValueError(
                f"{image_name(entry)}: the ground truth has label {invalid}, expected 0 to {num_classes - 1} "
                f"or {self.ignore_value} for pixels that do not count"
            )
        pairs = gt_labels * num_classes + predicted[is_labeled]
        confusion = np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)
        if self._counts.confusion is not None:
            confusion = confusion + self._counts.confusion
        self._counts = _Counts(confusion, self._counts.num_images + 1)

    def _compute(self, parts: Sequence[_Counts]) -> dict[str, float]:
        matrices = [part.confusion for part in parts if part.confusion is not None]
        if not matrices:
            raise ValueError("no image was evaluated: the loader is empty")
        if any(matrix.shape != matrices[0].shape for matrix in matrices):
            raise ValueError(
                f"processes received different numbers of classes: {[len(matrix) for matrix in matrices]}"
            )
        confusion = np.sum(matrices, axis=0)
        correct = np.diagonal(confusion)
        in_ground_truth, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
        iou = _ratio(correct, in_ground_truth + predicted - correct)
        accuracy = _ratio(correct, in_ground_truth)
        total = int(in_ground_truth.sum())
        metrics = {
            "semantic/mIoU": _mean(iou if self.count_predicted_only else iou[in_ground_truth > 0]),
            "semantic/fwIoU": float(np.nansum(iou * in_ground_truth) / total) if total else math.nan,
            "semantic/mACC": _mean(accuracy),
            "semantic/pACC": float(correct.sum() / total) if total else math.nan,
        }
        names = self.metadata.stuff_classes or [str(label) for label in range(len(confusion))]
        num_images = sum(part.num_images for part in parts)
        share = _ratio(in_ground_truth, np.full(len(in_ground_truth), total))
        self._tables = [_summary_table(metrics, num_images), _class_table(names, iou, accuracy, share)]
        return metrics


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divide elementwise; NaN where ``whole`` is 0."""
    ratio = np.full(len(whole), math.nan)
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio


def _mean(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else math.nan


def _summary_table(metrics: Mapping[str, float], num_images: int) -> Table:
    values = [format_percent(metrics[f"semantic/{name}"]) for name in METRICS]
    return compact_table("Semantic segmentation in %", ["images", *METRICS], [[str(num_images), *values]])


def _class_table(
    names: Sequence[str], iou: np.ndarray, accuracy: np.ndarray, share: np.ndarray
) -> BlockTable:
    rows = [
        [name, *[format_percent(value) for value in values]]
        for name, *values in zip(names, share.tolist(), iou.tolist(), accuracy.tolist(), strict=True)
    ]
    return BlockTable("Classes in %", ["class", "pixels", "IoU", "ACC"], rows)
