"""Log values and images for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from .logger import Logger

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from ..trainer import Trainer

__all__ = ["TensorBoardLog"]


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

        purge_step = trainer.step + 1 if trainer.resumed_from is not None else None
        self._writer = SummaryWriter(str(trainer.output_dir / self.folder), purge_step=purge_step)

    def log_training(self, trainer: Trainer, values: Mapping[str, float]) -> None:
        """Add a point to each training curve."""
        self._write({f"train/{name}": value for name, value in values.items()}, trainer.step)

    def log_metrics(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """Add a point to each metric."""
        self._write(metrics, trainer.step)

    def log_image(self, trainer: Trainer, name: str, image: Tensor) -> None:
        """Add an image."""
        if self._writer is not None:
            self._writer.add_image(name, image, trainer.step)

    def close(self) -> None:
        """Close the writer."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _write(self, values: Mapping[str, float], step: int) -> None:
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)
