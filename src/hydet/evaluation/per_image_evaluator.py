"""The base class of evaluators that keep the results of every image until the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Generic, TypeVar

from rich.console import RenderableType

from hydet.distributed import compute_on_main
from hydet.structures import ModelInput, ModelOutput

from .ground_truth_maps import image_name

__all__ = ["PerImageEvaluator"]

R = TypeVar("R")  # results of one image


class PerImageEvaluator(ABC, Generic[R]):
    """Base class of evaluators that store results by ``image_id`` and compute metrics on the main process.

    Subclasses define which data of an image to store (``_collect``), and how to compute metrics and tables from all
    images (``_compute``). An image that appears twice counts once, because distributed samplers may repeat images.
    """

    def __init__(self) -> None:
        self._results: dict[int, R] = {}
        self._tables: list[RenderableType] = []

    def reset(self) -> None:
        """Discard all results."""
        self._results = {}
        self._tables = []

    def update(self, inputs: Sequence[ModelInput], outputs: Sequence[ModelOutput]) -> None:
        """Add the inputs and results of one batch.

        Raises:
            ValueError: if an input has no ``image_id``, or a result lacks what this evaluator needs.
        """
        for entry, output in zip(inputs, outputs, strict=True):
            image_id = entry.get("image_id")
            if image_id is None:
                raise ValueError(f"{image_name(entry)}: evaluation needs an image_id")
            self._results[image_id] = self._collect(entry, output)

    def compute(self) -> dict[str, float]:
        """Merge the results of all processes and compute metrics.

        Raises:
            ValueError: if there are no results, or results of an image that the ground truth lacks.
        """

        def compute_merged(parts: list[dict[int, R]]) -> dict[str, float]:
            results = {image_id: result for part in parts for image_id, result in part.items()}
            if not results:
                raise ValueError("no image was evaluated: the loader is empty")
            return self._compute(dict(sorted(results.items())))

        return compute_on_main(self._results, compute_merged)

    def tables(self) -> list[RenderableType]:
        """Return tables to print after ``compute``; only the main process has any."""
        return self._tables

    @abstractmethod
    def _collect(self, entry: ModelInput, output: ModelOutput) -> R:
        """Return the data of an image that ``_compute`` needs."""

    @abstractmethod
    def _compute(self, results: Mapping[int, R]) -> dict[str, float]:
        """Compute the metrics of all images, and set ``_tables``."""

    @staticmethod
    def _check_images(results: Iterable[int], in_ground_truth: Iterable[int]) -> None:
        unknown = sorted(set(results) - set(in_ground_truth), key=str)
        if unknown:
            raise ValueError(
                f"results of {len(unknown)} images that are not in the ground truth, such as "
                f"image_id {unknown[0]!r}: loader and evaluator must use the same dataset"
            )
