"""What evaluators share that keep the results of every image until the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hydet.distributed import compute_on_main

from .ground_truth import image_name

__all__ = ["PerImageEvaluator"]


class PerImageEvaluator:
    """Collects results by ``image_id`` and measures them on the main process.

    Subclasses say what to keep of an image (``_collect``) and what to make of all of them (``_measure``, which also
    sets ``_tables``). An image that is seen twice counts once.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all results."""
        self._results: dict[Any, Any] = {}
        self._tables: list[Any] = []

    def update(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Take one batch.

        Raises:
            ValueError: if an input has no ``image_id``, or the model's results are not what is to be evaluated.
        """
        for entry, output in zip(inputs, outputs, strict=True):
            if entry.get("image_id") is None:
                raise ValueError(f"{image_name(entry)}: evaluation needs an image_id")
            self._results[entry["image_id"]] = self._collect(entry, output)

    def compute(self) -> dict[str, float]:
        """Merge the processes' results and measure them.

        Raises:
            ValueError: if there are no results, or some of an image that the ground truth does not have.
        """

        def measure(parts: list[dict[Any, Any]]) -> dict[str, float]:
            results = {image: found for part in parts for image, found in part.items()}
            if not results:
                raise ValueError("no image was evaluated: the loader is empty")
            return self._measure(dict(sorted(results.items())))

        return compute_on_main(self._results, measure)

    def tables(self) -> list[Any]:
        """What to print; empty before ``compute`` and on processes other than the main one."""
        return self._tables

    def _collect(self, entry: Mapping[str, Any], output: Mapping[str, Any]) -> Any:
        raise NotImplementedError

    def _measure(self, results: dict[Any, Any]) -> dict[str, float]:
        raise NotImplementedError

    @staticmethod
    def _check_images(results: Iterable[Any], known: Iterable[Any]) -> None:
        strangers = sorted(set(results) - set(known), key=str)
        if strangers:
            raise ValueError(
                f"results of {len(strangers)} images that the ground truth does not have, such as "
                f"image_id {strangers[0]!r}: loader and evaluator must use the same dataset"
            )
