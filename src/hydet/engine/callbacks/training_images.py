"""Pictures that a model draws of its own training."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor

from hydet.distributed import is_main_process
from hydet.visualization import save_png

from .callback import Callback

if TYPE_CHECKING:
    from ..trainer import Trainer

__all__ = ["ModelPictures"]


class ModelPictures(Callback):
    """Takes the pictures of every module whose ``vis_period`` is set: for the loggers, and as PNG files.

    The period counts optimizer steps, also where each takes several batches and after a resume. A picture appears when
    its step is complete.

    Args:
        folder: below the output folder; ``None`` writes no files.
    """

    def __init__(self, *, folder: str | None = "pictures/training") -> None:
        self.folder = folder
        self._taken: dict[
            str, tuple[int, Tensor]
        ] = {}  # by name: the period, and the last picture of the step

    def on_fit_start(self, trainer: Trainer) -> None:
        self._taken.clear()
        for module in trainer.model.modules():
            if getattr(module, "vis_period", 0) > 0 and hasattr(module, "on_picture"):
                module.on_picture = self._taker(module) if is_main_process() else None
                if hasattr(module, "training_forwards"):
                    module.training_forwards = trainer.step * trainer.accumulate

    def _taker(self, module: Any) -> Callable[[str, Tensor], None]:
        def take(name: str, picture: Tensor) -> None:
            self._taken[name] = (module.vis_period, picture)

        return take

    def on_step_end(self, trainer: Trainer) -> None:
        for name, (period, picture) in self._taken.items():
            if trainer.step % period == 0:  # not so for each batch of a step that takes several
                if self.folder is not None:
                    words = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
                    save_png(
                        picture, trainer.output_dir / self.folder / f"step_{trainer.step:08d}_{words}.png"
                    )
                trainer.log_picture(name, picture)
        self._taken.clear()

    def on_fit_end(self, trainer: Trainer) -> None:
        self._release(trainer)

    def on_exception(self, trainer: Trainer, error: BaseException) -> None:
        self._release(trainer)

    @staticmethod
    def _release(trainer: Trainer) -> None:
        for module in trainer.model.modules():
            if getattr(module, "on_picture", None) is not None:
                module.on_picture = None  # type: ignore[assignment]
