"""Write checkpoints at an interval, and keep the last ones and the best."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from hydet.distributed import barrier, is_main_process
from hydet.files import WriteError, discard_folder, naming_write_errors, remove_leftovers, set_aside

from ..checkpoint_folder import METADATA
from ..checkpoint_search import LINKS, find_last_checkpoint, list_checkpoints, list_step_folders
from ..folder_links import link_folder, link_target
from ..interruption import TrainingInterrupted
from ..protocols import StateDict
from .callback import Callback, CallbackPhase
from .metric_comparison import Mode, check_mode, is_better, read_metric
from .step_interval import check_interval, is_due

if TYPE_CHECKING:
    from ..trainer import Trainer

__all__ = ["Checkpoints"]


class Checkpoints(Callback):
    """Write ``<output_dir>/checkpoints/step_<n>``, and let ``last`` and ``best`` link to one of them.

    A checkpoint is also written when a signal ends the run.

    Args:
        every: steps between two checkpoints; the last step always gets one.
        keep_last: number of newest checkpoints to keep; the best one is kept in addition.
        best: metric that decides which checkpoint is the best, such as ``"box/AP"``; None for no best checkpoint.
        mode: ``"max"`` or ``"min"``; ``"auto"`` is ``"min"`` if the metric is a loss and ``"max"`` otherwise.
    """

    phase = CallbackPhase.SAVE_CHECKPOINT

    def __init__(
        self, *, every: int, keep_last: int = 2, best: str | None = None, mode: Mode = "auto"
    ) -> None:
        if keep_last < 1:
            raise ValueError(f"keep_last must be at least 1, got {keep_last}")
        self.every = check_interval(every)
        self.keep_last = keep_last
        self.best = best
        self.mode = check_mode(mode)
        self.best_value: float | None = None
        self.best_step: int | None = None
        self._written_step: int | None = None
        self._is_new_best = False
        self._had_folder = False

    def folder(self, trainer: Trainer) -> Path:
        """Return the folder of this run's checkpoints."""
        return trainer.output_dir / "checkpoints"

    def on_fit_start(self, trainer: Trainer) -> None:
        """Remove what a killed run left behind.

        Raises:
            FileExistsError: if a new run starts in the output folder of another run.
        """
        folder = self.folder(trainer)
        self._written_step = trainer.step if trainer.resumed_from else None
        if trainer.resumed_from is None:
            last = find_last_checkpoint(folder) if folder.is_dir() else None
            if last is not None:
                raise FileExistsError(
                    f"{folder} already contains checkpoints of a run ({last.name}): "
                    "resume=auto continues that run, another output_dir starts a new one"
                )
        if is_main_process():
            with naming_write_errors(folder):
                remove_leftovers(folder)
                _replace_copies_of_links(folder)
                self._set_aside_later(trainer)
        barrier()
        self._had_folder = folder.is_dir()
        if self._is_new_best:  # from an evaluation that the interrupted run had missed
            self.write(trainer)

    def on_evaluation_end(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """Compare the metric with its best value.

        Raises:
            ValueError: if the evaluation has no such metric.
        """
        if self.best is None:
            return
        value = read_metric(metrics, self.best)
        if is_better(self.best, value, self.best_value, mode=self.mode):
            self.best_value, self.best_step = value, trainer.step
            self._is_new_best = True

    def on_step_end(self, trainer: Trainer) -> None:
        """Write a checkpoint at the interval, after the last step, and for a new best value."""
        is_due_now = trainer.should_stop or is_due(trainer.step, self.every, trainer.max_steps)
        if is_due_now or self._is_new_best:
            self.write(trainer)

    def on_exception(self, trainer: Trainer, error: BaseException) -> None:
        """Write a checkpoint if a signal, or another file that could not be written, ended the run."""
        if isinstance(error, TrainingInterrupted):
            self._write_unless_written(trainer)
            saved = f"checkpoint: {self.folder(trainer) / _name(trainer.step)}; resume=auto continues"
            trainer.terminal.print_ending(f"{error}; {saved if trainer.step else 'no step is complete yet'}")
        elif isinstance(error, WriteError):
            if error is trainer.write_error:  # all processes have it, after a complete step
                with contextlib.suppress(OSError):  # the same disk may be full
                    self._write_unless_written(trainer)
            last = find_last_checkpoint(self.folder(trainer))
            error.consequences.append(
                "no checkpoint is complete"
                if last is None
                else f"resume=auto output_dir={trainer.output_dir} continues from {last.name}"
            )

    def _write_unless_written(self, trainer: Trainer) -> None:
        if trainer.step > 0 and self._written_step != trainer.step:
            self.write(trainer)

    def write(self, trainer: Trainer) -> None:
        """Write a checkpoint of the current step now; every process must call this method.

        Raises:
            WriteError: if it cannot be written, or if the folder of checkpoints is gone; it is then made anew.
        """
        folder = self.folder(trainer)
        is_best, self._is_new_best = self._is_new_best, False
        self._written_step = trainer.step  # before it fails on the main process alone
        is_there = folder.is_dir() if self._had_folder else trainer.output_dir.is_dir()
        checkpoint = trainer.save(folder / _name(trainer.step))
        if checkpoint is not None:
            link_folder(folder / "last", checkpoint.path)
            if is_best:
                link_folder(folder / "best", checkpoint.path)
            self._remove_old(folder)
        self._had_folder = True
        if is_main_process() and not is_there:
            cause = (
                "the folder was deleted or renamed during the run; it now holds the newest checkpoint only"
            )
            raise WriteError(errno.ENOENT, cause, str(folder))

    def _set_aside_later(self, trainer: Trainer) -> None:
        """Rename checkpoints of later steps: the run goes back, and rotation by step would keep them and not its own."""
        for step_folder in list_step_folders(self.folder(trainer)):
            if step_folder.step > trainer.step:
                name = set_aside(step_folder.path).name
                trainer.print(escape(f"{step_folder.path} is later than step {trainer.step}: kept as {name}"))

    def _remove_old(self, folder: Path) -> None:
        best = link_target(folder / "best")
        for checkpoint in list_checkpoints(folder)[: -self.keep_last]:
            if best is None or checkpoint.path.name != best.name:
                discard_folder(checkpoint.path)

    def state_dict(self) -> StateDict:
        """Return the best value, its step, and the metric and mode to which they belong."""
        return {
            "best": self.best,
            "mode": self.mode,
            "best_value": self.best_value,
            "best_step": self.best_step,
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Continue from a state that ``state_dict`` returned, unless it belongs to another metric or mode."""
        mode = state.get("mode", self.mode)  # older states have none
        if (state["best"], mode) == (self.best, self.mode):
            self.best_value, self.best_step = state["best_value"], state["best_step"]


def _replace_copies_of_links(folder: Path) -> None:
    """Make links of the folders that a copy of a run has in their place.

    Such a copy is removed if the checkpoint is there under its own name, too, and set aside otherwise.
    """
    for link in (folder / name for name in LINKS):
        if link.is_symlink() or not link.is_dir():
            continue
        content = _metadata_of(link)
        same = [c.path for c in list_checkpoints(folder) if content and _metadata_of(c.path) == content]
        if same:
            discard_folder(link)
            link_folder(link, same[0])
        else:
            set_aside(link)


def _metadata_of(folder: Path) -> bytes:
    file = folder / METADATA
    return file.read_bytes() if file.is_file() else b""


def _name(step: int) -> str:
    return f"step_{step:08d}"
