"""Show the progress of training on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from .callback import CallbackPhase
from .logger import Logger

if TYPE_CHECKING:
    from ..terminal import Terminal
    from ..trainer import Trainer

__all__ = ["ConsoleLog"]


class ConsoleLog(Logger):
    """Show a progress bar if the output is a terminal, and print a line of losses every ``every`` steps.

    Args:
        every: steps between two lines; the first step also gets one.
    """

    phase = CallbackPhase.SHOW_PROGRESS

    def __init__(self, *, every: int = 20) -> None:
        super().__init__(every=every)
        self._terminal: Terminal | None = None  # the terminal on which the bar is visible
        self._progress: Progress | None = None
        self._task = TaskID(0)

    def open(self, trainer: Trainer) -> None:
        """Print where a resumed run continues, and start the progress bar."""
        if trainer.resumed_from is not None:
            trainer.print(
                f"continuing from {escape(str(trainer.resumed_from))}, step {trainer.step} of {trainer.max_steps}"
            )
        terminal = trainer.terminal
        if not terminal.console.is_terminal:
            return
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
            _RateColumn(),
            console=terminal.console,
        )
        terminal.show_progress(self._progress)
        self._terminal = terminal
        self._task = self._progress.add_task(
            "training", total=trainer.max_steps, completed=trainer.step, rate=""
        )

    def is_due(self, trainer: Trainer) -> bool:
        """Return True at the interval and after the first step, so that a mistake is visible at once."""
        return trainer.step == 1 or super().is_due(trainer)

    def on_step_end(self, trainer: Trainer) -> None:
        """Move the progress bar, and print a line if one is due."""
        if self._progress is not None:
            self._progress.update(self._task, completed=trainer.step)
        super().on_step_end(trainer)

    def log_training(self, trainer: Trainer, values: Mapping[str, float]) -> None:
        """Print one line, and show speed and memory beside the progress bar."""
        rate = f"{values['images_per_second']:.1f} images/s"
        memory = f"{values['memory_gb']:.1f} GB" if "memory_gb" in values else ""
        if self._progress is not None:
            self._progress.update(self._task, rate=f"{rate} {memory}".rstrip())
        remaining = timedelta(seconds=round(values["seconds_per_step"] * (trainer.max_steps - trainer.step)))
        losses = [
            f"{name.removeprefix('loss/')} {value:.4g}" for name, value in values.items() if "loss/" in name
        ]
        parts = [
            f"step {trainer.step}/{trainer.max_steps}",
            f"eta {remaining}",
            rate,
            f"data {values['data_fraction']:.0%}",
            *([memory] if memory else []),
            f"lr {values['lr']:.3g}",
            "| " + "  ".join(reversed(losses)),  # the total comes first
        ]
        trainer.print("  ".join(parts))

    def close(self) -> None:
        """Stop the progress bar."""
        if self._terminal is not None:
            self._terminal.hide_progress()
        self._terminal = self._progress = None


class _RateColumn(ProgressColumn):
    """Speed and memory of training; empty for other tasks, such as an evaluation."""

    def render(self, task: Task) -> Text:
        return Text(task.fields.get("rate", ""))
