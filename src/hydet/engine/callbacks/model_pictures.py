"""Pictures that a model draws of its own training."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from torch import Tensor

from hydet.visualization import save_png

from ..distributed import is_main_process
from .callback import Callback

if TYPE_CHECKING:
    from ..trainer import Trainer

__all__ = ["ModelPictures"]


class ModelPictures(Callback):
    """Takes the pictures of every module whose ``vis_period`` is set: for the loggers, and as PNG files.

    Args:
        folder: below the output folder; ``None`` writes no files.
    """

    def __init__(self, *, folder: str | None = "pictures/training") -> None:
        self.folder = folder

    def on_fit_start(self, trainer: Trainer) -> None:
        def take(name: str, picture: Tensor) -> None:
            if self.folder is not None:
                words = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
                save_png(
                    picture, trainer.output_dir / self.folder / f"step_{trainer.step + 1:08d}_{words}.png"
                )
            trainer.log_picture(name, picture)

        for module in trainer.model.modules():
            if getattr(module, "vis_period", 0) > 0 and hasattr(module, "on_picture"):
                module.on_picture = take if is_main_process() else None

    def on_fit_end(self, trainer: Trainer) -> None:
        self._release(trainer)

    def on_exception(self, trainer: Trainer, error: BaseException) -> None:
        self._release(trainer)

    @staticmethod
    def _release(trainer: Trainer) -> None:
        for module in trainer.model.modules():
            if getattr(module, "on_picture", None) is not None:
                module.on_picture = None
