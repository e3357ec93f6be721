"""The base class of callbacks that log."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from hydet.distributed import is_main_process

from .callback import Callback
from .step_interval import check_interval, is_due
from .step_statistics import StepStatistics

if TYPE_CHECKING:
    from ..trainer import Trainer

__all__ = ["Logger"]


class Logger(Callback, ABC):
    """Write training values every ``every`` steps, and metrics and images when they arrive.

    A subclass defines ``log_training`` and what else it writes. All of its methods run on the main process only.

    Args:
        every: steps between two entries, which hold means since the previous entry.
    """

    def __init__(self, *, every: int = 20) -> None:
        self.every = check_interval(every)
        self._statistics = StepStatistics()

    def open(self, trainer: Trainer) -> None:
        """Prepare to write; called before the first step."""

    @abstractmethod
    def log_training(self, trainer: Trainer, values: Mapping[str, float]) -> None:
        """Write what ``StepStatistics.summarize`` returned."""

    def log_metrics(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """Write the metrics of an evaluation."""

    def log_image(self, trainer: Trainer, name: str, image: Tensor) -> None:
        """Write an image: ``(3, H, W)`` uint8 RGB."""

    def close(self) -> None:
        """Release resources; called when the run ends, possibly more than once."""

    def is_due(self, trainer: Trainer) -> bool:
        """Return True if the step that has just ended gets an entry. All processes must agree."""
        return is_due(trainer.step, self.every, trainer.max_steps)

    def on_fit_start(self, trainer: Trainer) -> None:
        """Open the log."""
        self._statistics.clear()
        if is_main_process():
            self.open(trainer)

    def on_step_end(self, trainer: Trainer) -> None:
        """Write an entry if one is due."""
        self._statistics.add(trainer)
        if self.is_due(trainer):
            values = self._statistics.summarize(trainer)
            if is_main_process():
                self.log_training(trainer, values)

    def on_evaluation_end(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """Write the metrics."""
        if is_main_process():
            self.log_metrics(trainer, metrics)

    def on_image(self, trainer: Trainer, name: str, image: Tensor) -> None:
        """Write the image."""
        if is_main_process():
            self.log_image(trainer, name, image)

    def on_fit_end(self, trainer: Trainer) -> None:
        """Close the log."""
        self.close()

    def on_exception(self, trainer: Trainer, error: BaseException) -> None:
        """Close the log."""
        self.close()
