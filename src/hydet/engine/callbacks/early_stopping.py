"""Stop when there is nothing more to gain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .best_value import check_mode, is_better, read_metric
from .callback import Callback

if TYPE_CHECKING:
    from ..trainer import Trainer

__all__ = ["EarlyStopping"]


class EarlyStopping(Callback):
    """Ends the run when a metric has not improved for some evaluations.

    Args:
        metric: such as ``"box/AP"`` or ``"val_loss/total"``.
        patience: evaluations without improvement after which the run ends.
        min_delta: smaller improvements do not count.
        mode: ``"max"`` or ``"min"``; ``"auto"`` takes less for better where the metric is a loss.
    """

    def __init__(self, *, metric: str, patience: int = 5, min_delta: float = 0.0, mode: str = "auto") -> None:
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
        value = read_metric(metrics, self.metric)
        if is_better(self.metric, value, self.best_value, mode=self.mode, min_delta=self.min_delta):
            self.best_value, self.waited = value, 0
            return
        self.waited += 1
        if self.waited >= self.patience and not trainer.should_stop:
            trainer.should_stop = True
            trainer.print(
                f"stopping early: {self.metric} has not improved on {self.best_value} for {self.waited} evaluations"
            )

    def state_dict(self) -> dict[str, Any]:
        return {"best_value": self.best_value, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best_value, self.waited = state["best_value"], state["waited"]
