"""Numbers and pictures for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from hydet.distributed import is_main_process

from .callback import Callback
from .loss_window import LossWindow, check_every, is_due

if TYPE_CHECKING:
    from ..trainer import Trainer

__all__ = ["TensorBoardLog"]


class TensorBoardLog(Callback):
    """Training under ``train/``, evaluations under their own names, and all pictures.

    Args:
        every: steps between points of the training curves, which are means since the last one.
        folder: below the output folder.
    """

    def __init__(self, *, every: int = 20, folder: str = "tensorboard") -> None:
        self.every = check_every(every)
        self.folder = folder
        self._window = LossWindow()
        self._writer: Any = None

    def on_fit_start(self, trainer: Trainer) -> None:
        self._window.clear()
        if is_main_process():
            from torch.utils.tensorboard import SummaryWriter  # slow to import

            purge = trainer.step + 1 if trainer.resumed_from is not None else None
            self._writer = SummaryWriter(str(trainer.output_dir / self.folder), purge_step=purge)

    def on_step_end(self, trainer: Trainer) -> None:
        self._window.add(trainer)
        if is_due(trainer.step, self.every, trainer.max_steps):
            numbers = self._window.summary(trainer)
            self._write({f"train/{name}": value for name, value in numbers.items()}, trainer.step)

    def on_evaluation_end(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        self._write(metrics, trainer.step)

    def on_picture(self, trainer: Trainer, name: str, picture: Tensor) -> None:
        if self._writer is not None:
            self._writer.add_image(name, picture, trainer.step)

    def on_fit_end(self, trainer: Trainer) -> None:
        self._close()

    def on_exception(self, trainer: Trainer, error: BaseException) -> None:
        self._close()

    def _write(self, numbers: Mapping[str, float], step: int) -> None:
        if self._writer is not None:
            for name, value in numbers.items():
                self._writer.add_scalar(name, value, step)

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
