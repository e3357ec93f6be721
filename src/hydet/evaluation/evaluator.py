"""The protocol of evaluators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

__all__ = ["Evaluator"]


@runtime_checkable
class Evaluator(Protocol):
    """Collects what a model says about a dataset and turns it into metrics.

    ``evaluate`` calls ``reset`` once, ``update`` for every batch and ``compute`` at the end. Under
    ``torch.distributed`` each process sees its share of the images; ``compute`` is called on all of them and
    returns the same metrics everywhere.
    """

    def reset(self) -> None:
        """Forget everything seen so far."""

    def update(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Take the results of one batch: what went into the model, and what came out."""

    def compute(self) -> dict[str, float]:
        """Flat metrics such as ``{"box/AP": 0.41}``, between 0 and 1 where they are rates; NaN if undefined."""

    def tables(self) -> list[Any]:
        """What to print after ``compute``: objects that rich can print; empty except on the main process."""
