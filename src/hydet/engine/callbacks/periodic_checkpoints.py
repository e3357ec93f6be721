"""Writes checkpoints, and keeps the last ones and the best."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from hydet.distributed import barrier, is_main_process

from ..atomic_files import discard, point_to, pointer_target, remove_garbage
from ..checkpoint import find_last_checkpoint, list_checkpoints
from ..interruption import TrainingInterrupted
from .best_value import check_mode, is_better, read_metric
from .callback import Callback
from .loss_window import check_every, is_due

if TYPE_CHECKING:
    from ..trainer import Trainer

__all__ = ["Checkpoints"]


class Checkpoints(Callback):
    """Writes ``<output_dir>/checkpoints/step_<n>``, with ``last`` and ``best`` pointing to one of them.

    Whatever its place in the list, it works after the other callbacks, so that what it stores includes what they did
    in this step. A checkpoint is also written when a signal ends the run.

    Args:
        every: steps between checkpoints; there is always one after the last step.
        keep_last: so many are kept; the best one is kept besides.
        best: the metric that decides which is the best, such as ``"box/AP"``; ``None`` for no best.
        mode: ``"max"`` or ``"min"``; ``"auto"`` takes less for better where the metric is a loss.
    """

    order = 100

    def __init__(
        self, *, every: int, keep_last: int = 2, best: str | None = None, mode: str = "auto"
    ) -> None:
        if keep_last < 1:
            raise ValueError(f"keep_last must be at least 1, got {keep_last}")
        self.every = check_every(every)
        self.keep_last = keep_last
        self.best = best
        self.mode = check_mode(mode)
        self.best_value: float | None = None
        self.best_step: int | None = None
        self._written: int | None = None
        self._is_best = False

    def folder(self, trainer: Trainer) -> Path:
        """Where this run's checkpoints are."""
        return trainer.output_dir / "checkpoints"

    def on_fit_start(self, trainer: Trainer) -> None:
        """Clean up after a killed run.

        Raises:
            FileExistsError: if the run starts anew where another one has left checkpoints.
        """
        folder = self.folder(trainer)
        self._written = trainer.step if trainer.resumed_from else None
        if trainer.resumed_from is None:
            last = find_last_checkpoint(folder) if folder.is_dir() else None
            if last is not None:
                raise FileExistsError(
                    f"{folder} already holds checkpoints of a run ({last.name}): "
                    "resume=auto continues it, another output_dir starts anew"
                )
        if is_main_process():
            remove_garbage(folder)
        barrier()
        if self._is_best:  # an evaluation was made up for
            self.write(trainer)

    def on_evaluation_end(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        if self.best is None:
            return
        value = read_metric(metrics, self.best)
        if is_better(self.best, value, self.best_value, mode=self.mode):
            self.best_value, self.best_step = value, trainer.step
            self._is_best = True

    def on_step_end(self, trainer: Trainer) -> None:
        ends = trainer.should_stop or trainer.step == trainer.max_steps
        if ends or self._is_best or is_due(trainer.step, self.every, trainer.max_steps):
            self.write(trainer)

    def on_exception(self, trainer: Trainer, error: BaseException) -> None:
        if not isinstance(error, TrainingInterrupted):
            return
        if trainer.step > 0 and self._written != trainer.step:
            self.write(trainer)
        saved = f"checkpoint: {self.folder(trainer) / _name(trainer.step)}; resume=auto continues"
        trainer.print(escape(f"{error}; {saved if trainer.step else 'nothing to save yet'}"))

    def write(self, trainer: Trainer) -> None:
        """Write a checkpoint of the current step now; every process must call it."""
        folder = self.folder(trainer)
        is_best, self._is_best = self._is_best, False
        written = trainer.save(folder / _name(trainer.step))
        self._written = trainer.step
        if written is not None:
            point_to(folder / "last", written.path)
            if is_best:
                point_to(folder / "best", written.path)
            self._prune(folder)

    def _prune(self, folder: Path) -> None:
        best = pointer_target(folder / "best")
        spared = best.name if best is not None else None
        for old in list_checkpoints(folder)[: -self.keep_last]:
            if old.path.name != spared:
                discard(old.path)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_value": self.best_value, "best_step": self.best_step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["best"] == self.best:
            self.best_value, self.best_step = state["best_value"], state["best_step"]


def _name(step: int) -> str:
    return f"step_{step:08d}"
