"""Progress on the terminal."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from hydet.distributed import is_main_process

from .callback import Callback
from .loss_window import LossWindow, check_every, is_due

if TYPE_CHECKING:
    from ..trainer import Trainer

__all__ = ["ConsoleLog"]


class _RateColumn(ProgressColumn):
    """What ``ConsoleLog`` says beside the bar; other tasks have nothing to say."""

    def render(self, task: Task) -> Text:
        return Text(task.fields.get("rate", ""))


class ConsoleLog(Callback):
    """A progress bar on terminals, and everywhere a line of losses every so many steps.

    Args:
        every: steps between lines.
    """

    order = -50  # its bar is there before others print, and its line stands above their tables

    def __init__(self, *, every: int = 20) -> None:
        self.every = check_every(every)
        self._window = LossWindow()
        self._progress: Progress | None = None

    def on_fit_start(self, trainer: Trainer) -> None:
        self._window.clear()
        if trainer.resumed_from is not None:
            trainer.print(
                f"continuing from {escape(str(trainer.resumed_from))}, step {trainer.step} of {trainer.max_steps}"
            )
        if is_main_process() and trainer.console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("eta"),
                TimeRemainingColumn(),
                _RateColumn(),
                console=trainer.console,
            )
            self._progress.start()
            self._task = self._progress.add_task(
                "training", total=trainer.max_steps, completed=trainer.step, rate=""
            )
            trainer.progress = self._progress

    def on_step_end(self, trainer: Trainer) -> None:
        self._window.add(trainer)
        if self._progress is not None:
            self._progress.update(self._task, completed=trainer.step)
        if not is_due(trainer.step, self.every, trainer.max_steps) and trainer.step != 1:
            return
        seen = self._window.summary(trainer)
        rate = f"{seen['images_per_second']:.1f} images/s"
        if self._progress is not None:
            self._progress.update(self._task, rate=f"{rate} {seen['memory_gb']:.1f} GB")
        left = timedelta(seconds=round(seen["seconds_per_step"] * (trainer.max_steps - trainer.step)))
        losses = [
            f"{name.removeprefix('loss/')} {value:.4g}" for name, value in seen.items() if "loss/" in name
        ]
        trainer.print(
            f"step {trainer.step}/{trainer.max_steps}  eta {left}  {rate}  data {seen['data_fraction']:.0%}  "
            f"{seen['memory_gb']:.1f} GB  lr {seen['lr']:.3g}  | " + "  ".join(reversed(losses))
        )

    def on_fit_end(self, trainer: Trainer) -> None:
        self._stop(trainer)

    def on_exception(self, trainer: Trainer, error: BaseException) -> None:
        self._stop(trainer)

    def _stop(self, trainer: Trainer) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = trainer.progress = None
