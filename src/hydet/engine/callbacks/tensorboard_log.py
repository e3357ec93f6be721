"""Log values and images for TensorBoard."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from hydet.files import naming_write_errors

from .logger import Logger

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from ..trainer import Trainer

__all__ = ["TensorBoardLog"]

_PREFIX = "events.out.tfevents."  # followed by the second of creation, the host, the process and a count


class TensorBoardLog(Logger):
    """Log training values under ``train/``, metrics under their own names, and all images.

    Args:
        every: steps between points of the training curves, which are means since the previous point.
        folder: path below the output folder.
    """

    def __init__(self, *, every: int = 20, folder: str = "tensorboard") -> None:
        super().__init__(every=every)
        self.folder = folder
        self._writer: SummaryWriter | None = None

    def open(self, trainer: Trainer) -> None:
        """Create the writer; in a resumed run, hide the points after its checkpoint."""
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        folder = trainer.output_dir / self.folder
        purge_step = trainer.step + 1 if trainer.resumed_from is not None else None
        _hide_write_errors_of_threads()
        with naming_write_errors(folder):
            _rename_later_files(folder)
            self._writer = SummaryWriter(str(folder), purge_step=purge_step)

    def log_training(self, trainer: Trainer, values: Mapping[str, float]) -> None:
        """Add a point to each training curve."""
        self._write({f"train/{name}": value for name, value in values.items()}, trainer.step)

    def log_metrics(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """Add a point to each metric."""
        self._write(metrics, trainer.step)

    def log_image(self, trainer: Trainer, name: str, image: Tensor) -> None:
        """Add an image."""
        if self._writer is not None:
            with naming_write_errors(self._writer.log_dir):
                self._writer.add_image(name, image, trainer.step)

    def close(self) -> None:
        """Close the writer."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            with naming_write_errors(writer.log_dir):
                writer.close()

    def _write(self, values: Mapping[str, float], step: int) -> None:
        if self._writer is not None:
            with naming_write_errors(self._writer.log_dir):
                for name, value in values.items():
                    self._writer.add_scalar(name, value, step)
                self._writer.flush()  # the thread that writes reports an error with the next call only


def _hide_write_errors_of_threads() -> None:
    """Print no traceback if TensorBoard's writer thread cannot write; its next call raises the error here."""
    previous = threading.excepthook
    if getattr(previous, "hides_write_errors", False):
        return

    def hook(args: threading.ExceptHookArgs) -> None:
        is_writer = type(args.thread).__module__.startswith("tensorboard")
        if not (is_writer and isinstance(args.exc_value, OSError)):
            previous(args)

    hook.hides_write_errors = True  # type: ignore[attr-defined]  # marks the hook
    threading.excepthook = hook


def _rename_later_files(folder: Path) -> None:
    """Rename event files that would sort after a new one.

    TensorBoard reads the files of a folder in order of their names. After the clock went back, or if two parts of a run
    started in the same second, it would read the new file first and hide the wrong points.
    """
    now = int(time.time())
    for i, file in enumerate(sorted(folder.glob(f"{_PREFIX}*"))):
        if file.name >= f"{_PREFIX}{now:010d}":
            # On Windows, a file that TensorBoard has open cannot be renamed. Training does not end for that.
            with contextlib.suppress(OSError):
                # "~" sorts after the names of hosts, and the position keeps the order among renamed files.
                file.rename(folder / f"{_PREFIX}{now - 1:010d}.~{i:06d}")
