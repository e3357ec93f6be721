"""Semantic segmentation: how well every pixel's label is found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from hydet.distributed import compute_on_main

from .blocks import percent, table_in_blocks
from .ground_truth import ground_truth_map, image_name

__all__ = ["SemanticEvaluator"]

METRICS = ("mIoU", "fwIoU", "mACC", "pACC")


class SemanticEvaluator:
    """Intersection over union and accuracy of semantic labels, from one confusion matrix over all images.

    With TP the pixels of a class that were found, T its pixels in the ground truth and P those predicted, metrics
    between 0 and 1 are

    - ``semantic/mIoU``: mean of TP / (T + P - TP) over the classes that occur in the ground truth or in predictions;
    - ``semantic/fwIoU``: the same weighted by T, so classes that are only predicted have no weight;
    - ``semantic/mACC``: mean of TP / T over the classes that occur in the ground truth;
    - ``semantic/pACC``: the fraction of all pixels whose label was found.

    Pixels without a label (``ignore_value``) count nowhere, whatever is predicted there. Without any labelled pixel
    all metrics are NaN.

    Args:
        dataset: has ``metadata``, whose ``stuff_classes`` name the labels; without them labels go by their number.
        ignore_value: the label of pixels that do not count.
    """

    def __init__(self, dataset: Any, *, ignore_value: int = 255) -> None:
        self.metadata = dataset.metadata
        self.ignore_value = ignore_value
        self.reset()

    def reset(self) -> None:
        """Forget all results."""
        self._confusion: np.ndarray | None = None  # (K, K) pixels, ground truth x prediction
        self._num_images = 0
        self._tables: list[Any] = []

    def update(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Take one batch.

        Args:
            inputs: with ``ground_truth["sem_seg"]``, ``(H, W)`` labels.
            outputs: with ``sem_seg``, ``(K, H, W)`` logits in the frame of the original image.

        Raises:
            ValueError: if either is missing, sizes differ, or there are more or fewer labels than classes.
        """
        for entry, output in zip(inputs, outputs, strict=True):
            if "sem_seg" not in output:
                raise ValueError(
                    f"{image_name(entry)}: the model gave {sorted(output)}, expected 'sem_seg' among them"
                )
            scores = output["sem_seg"]
            num_classes = self._check_classes(entry, scores.shape)
            predicted = scores.argmax(dim=0).cpu().numpy()
            labels = ground_truth_map(entry, "sem_seg", predicted.shape)
            self._count(entry, labels, predicted, num_classes)

    def compute(self) -> dict[str, float]:
        """Merge the processes' counts and measure them.

        Raises:
            ValueError: if there are no results, or processes saw different numbers of classes.
        """
        return compute_on_main((self._confusion, self._num_images), self._measure)

    def tables(self) -> list[Any]:
        """A summary and the numbers of each class; empty before ``compute`` and on other than the main process."""
        return self._tables

    def _check_classes(self, entry: Mapping[str, Any], shape: Sequence[int]) -> int:
        names = len(self.metadata.stuff_classes)
        known = names if self._confusion is None else len(self._confusion)
        if len(shape) != 3 or shape[0] == 0 or (known and shape[0] != known):
            raise ValueError(
                f"{image_name(entry)}: the model's sem_seg has shape {tuple(shape)}, expected "
                f"({known or 'classes'}, height, width){' for the stuff_classes of the dataset' if names else ''}"
            )
        return int(shape[0])

    def _count(
        self, entry: Mapping[str, Any], labels: np.ndarray, predicted: np.ndarray, num_classes: int
    ) -> None:
        counted = labels != self.ignore_value
        truth = labels[counted].astype(np.int64)
        if truth.size and not (truth.min() >= 0 and truth.max() < num_classes):
            wrong = truth[(truth < 0) | (truth >= num_classes)][0]
            raise ValueError(
                f"{image_name(entry)}: the ground truth has label {wrong}, expected 0 to {num_classes - 1} "
                f"or {self.ignore_value} for pixels that do not count"
            )
        pairs = truth * num_classes + predicted[counted]
        counts = np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)
        self._confusion = counts if self._confusion is None else self._confusion + counts
        self._num_images += 1

    def _measure(self, parts: Sequence[tuple[np.ndarray | None, int]]) -> dict[str, float]:
        seen = [confusion for confusion, _ in parts if confusion is not None]
        if not seen:
            raise ValueError("no image was evaluated: the loader is empty")
        if any(one.shape != seen[0].shape for one in seen):
            raise ValueError(f"processes saw different numbers of classes: {[len(one) for one in seen]}")
        confusion = np.sum(seen, axis=0)
        found = np.diagonal(confusion)
        real, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
        iou = _ratio(found, real + predicted - found)
        accuracy = _ratio(found, real)
        total = int(real.sum())
        metrics = {
            "semantic/mIoU": _mean(iou),
            "semantic/fwIoU": float(np.nansum(iou * real) / total) if total else math.nan,
            "semantic/mACC": _mean(accuracy),
            "semantic/pACC": float(found.sum() / total) if total else math.nan,
        }
        names = self.metadata.stuff_classes or [str(label) for label in range(len(confusion))]
        num_images = sum(number for _, number in parts)
        share = _ratio(real, np.full(len(real), total))
        self._tables = [_summary_table(metrics, num_images), _class_table(names, iou, accuracy, share)]
        return metrics


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Elementwise; NaN where ``whole`` is 0."""
    return np.divide(part, whole, out=np.full(len(whole), math.nan), where=whole > 0)


def _mean(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else math.nan


def _summary_table(metrics: Mapping[str, float], num_images: int) -> Table:
    table = Table(title="Semantic segmentation in %", title_justify="left")
    for name in ("images", *METRICS):
        table.add_column(name, justify="right")
    table.add_row(str(num_images), *[percent(metrics[f"semantic/{name}"]) for name in METRICS])
    return table


def _class_table(names: Sequence[str], iou: np.ndarray, accuracy: np.ndarray, share: np.ndarray) -> Table:
    rows = [
        [name, *[percent(value) for value in values]]
        for name, *values in zip(names, share.tolist(), iou.tolist(), accuracy.tolist(), strict=True)
    ]
    return table_in_blocks("Each class in %", ["class", "pixels", "IoU", "ACC"], rows)
