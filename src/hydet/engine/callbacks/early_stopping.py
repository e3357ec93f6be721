"""Stop a run that no longer improves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..protocols import StateDict
from .callback import Callback
from .metric_comparison import Mode, check_mode, is_better, read_metric

if TYPE_CHECKING:
    from ..trainer import Trainer

__all__ = ["EarlyStopping"]


class EarlyStopping(Callback):
    """End the run when a metric has not improved for ``patience`` evaluations.

    Args:
        metric: name of the metric, such as ``"box/AP"`` or ``"val_loss/total"``.
        patience: number of evaluations without an improvement after which the run ends.
        min_delta: smallest change that counts as an improvement.
        mode: ``"max"`` or ``"min"``; ``"auto"`` is ``"min"`` if the metric is a loss and ``"max"`` otherwise.
    """

    def __init__(
        self, *, metric: str, patience: int = 5, min_delta: float = 0.0, mode: Mode = "auto"
    ) -> None:
        if patience < 1:
            raise ValueError(f"patience must be at least 1, got {patience}")
        if min_delta < 0:
            raise ValueError(f"min_delta must not be negative, got {min_delta}")
        self.metric = metric
        self.patience = patience
        self.min_delta = min_delta
        self.mode = check_mode(mode)
        self.best_value: float | None = None
        self.waited = 0

    def on_evaluation_end(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """Compare the metric with its best value, and request the end of the run if it has stopped improving.

        Raises:
            ValueError: if the evaluation has no such metric.
        """
        value = read_metric(metrics, self.metric)
        if is_better(self.metric, value, self.best_value, mode=self.mode, min_delta=self.min_delta):
            self.best_value, self.waited = value, 0
            return
        self.waited += 1
        if self.waited >= self.patience and not trainer.should_stop:
            trainer.request_stop()
            trainer.print(
                f"stopping early: {self.metric} has not improved on {self.best_value} for {self.waited} evaluations"
            )

    def state_dict(self) -> StateDict:
        """Return the best value, the number of evaluations since then, and the metric and mode to which they belong."""
        return {
            "metric": self.metric,
            "mode": self.mode,
            "best_value": self.best_value,
            "waited": self.waited,
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Continue from a state that ``state_dict`` returned, unless it belongs to another metric or mode."""
        metric, mode = (
            state.get("metric", self.metric),
            state.get("mode", self.mode),
        )  # older states have none
        if (metric, mode) == (self.metric, self.mode):
            self.best_value, self.waited = state["best_value"], state["waited"]
