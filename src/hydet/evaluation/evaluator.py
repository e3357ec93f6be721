"""The evaluator protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from rich.console import RenderableType

from hydet.structures import ModelInput, ModelOutput

__all__ = ["Evaluator", "TakesROIMasks"]


@runtime_checkable
class Evaluator(Protocol):
    """Collects the results of a model on a dataset and turns them into metrics.

    ``evaluate`` calls ``reset`` once, ``update`` for every batch and ``compute`` at the end. Under
    ``torch.distributed``, each process sees its share of the images; ``compute`` is called on all processes and returns
    the same metrics everywhere.
    """

    def reset(self) -> None:
        """Discard all results."""

    def update(self, inputs: Sequence[ModelInput], outputs: Sequence[ModelOutput]) -> None:
        """Add the inputs and results of one batch."""

    def compute(self) -> dict[str, float]:
        """Return metrics, such as ``{"box/AP": 0.41}``. Rates lie between 0 and 1; undefined metrics are NaN."""
        ...

    def tables(self) -> Sequence[RenderableType]:
        """Return tables to print after ``compute``, or other objects of rich; only the main process has any."""
        ...


@runtime_checkable
class TakesROIMasks(Protocol):
    """An evaluator that also takes results that stay small for large images, if it reads them at all.

    ``pred_masks`` are then ``ROIMasks`` relative to the boxes, and ``sem_seg`` are ``SemanticScores``. For large photos,
    masks of the image's size take gigabytes. Other evaluators receive pasted masks and resized scores, image by image.
    """

    @property
    def takes_roi_masks(self) -> bool:
        """True."""
        ...
