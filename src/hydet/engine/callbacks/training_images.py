"""Draw training steps: the ground truth beside proposals, detections, labels or masks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from torch import Tensor

from hydet.distributed import is_main_process
from hydet.structures import Losses
from hydet.visualization import save_png

from ..protocols import Batch
from .callback import Callback
from .training_observers import TrainingObserver, make_observers

if TYPE_CHECKING:
    from ..trainer import Trainer

__all__ = ["TrainingImages"]


class TrainingImages(Callback):
    """Draw a training step every ``vis_period`` steps, for the loggers and as PNG files.

    Each meta-architecture and each mask head has its own ``vis_period``, in optimizer steps; 0 disables. A step that
    accumulates several batches shows the last one. The callback reads intermediate results through forward hooks, which
    are registered only for the steps that are drawn.

    Args:
        folder: path of the PNG files below the output folder; None writes no files.
    """

    def __init__(self, *, folder: str | None = "pictures/training") -> None:
        self.folder = folder
        self._observers: list[TrainingObserver] = []
        self._active: list[TrainingObserver] = []
        self._images: dict[str, Tensor] = {}
        self._batches_left = 0

    def on_fit_start(self, trainer: Trainer) -> None:
        """Find the parts of the model to draw."""
        self._observers = make_observers(trainer.model)

    def on_step_start(self, trainer: Trainer) -> None:
        """Start to watch the parts that this step draws."""
        step = trainer.step + 1
        self._images.clear()
        self._batches_left = trainer.accumulate
        self._active = [o for o in self._observers if o.period > 0 and step % o.period == 0]
        for observer in self._active:
            observer.attach()

    def on_losses(self, trainer: Trainer, batch: Batch, losses: Losses) -> None:
        """Draw the last batch of the step."""
        self._batches_left -= 1
        if self._batches_left > 0 or not self._active:
            return
        self._detach()
        for observer in self._active:
            # Every process runs what it needs for its image, since synchronized layers wait for all processes.
            with trainer.autocast():
                shown = observer.draw(batch)
            if shown is not None and is_main_process():
                name, image = shown
                self._images[name] = image

    def on_step_end(self, trainer: Trainer) -> None:
        """Pass the images of the step to the loggers, and write them to files."""
        for name, image in self._images.items():
            if self.folder is not None:
                words = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
                save_png(image, trainer.output_dir / self.folder / f"step_{trainer.step:08d}_{words}.png")
            trainer.log_image(name, image)
        self._images.clear()

    def on_exception(self, trainer: Trainer, error: BaseException) -> None:
        """Remove the hooks."""
        self._detach()

    def _detach(self) -> None:
        for observer in self._active:
            observer.detach()
