"""What the model sees now, as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from rich.markup import escape
from torch import Tensor

from hydet.distributed import is_main_process
from hydet.visualization import draw_ground_truth, draw_predictions, picture_grid, save_png

from .callback import Callback

if TYPE_CHECKING:
    from ..trainer import Trainer

__all__ = ["PredictionPictures"]


class PredictionPictures(Callback):
    """After each evaluation, a grid of predictions beside ground truth: ``<output_dir>/pictures/step_<n>.png``.

    The images are ``trainer.examples``, which ``Evaluation`` keeps.

    Args:
        score_threshold: objects below it are not drawn.
        pictures: at most so many images.
        folder: below the output folder.
    """

    def __init__(self, *, score_threshold: float = 0.5, pictures: int = 8, folder: str = "pictures") -> None:
        if not 0 <= score_threshold <= 1:
            raise ValueError(f"score_threshold must lie in [0, 1], got {score_threshold}")
        if pictures < 1:
            raise ValueError(f"pictures must be at least 1, got {pictures}")
        self.score_threshold = score_threshold
        self.pictures = pictures
        self.folder = folder

    def on_evaluation_end(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        examples = trainer.examples[: self.pictures]
        if not examples or not is_main_process():
            return
        rows = [self._row(trainer, entry, output) for entry, output in examples]
        grid = picture_grid(rows, column_captions=("predictions", "ground truth"))
        path = save_png(grid, trainer.output_dir / self.folder / f"step_{trainer.step:08d}.png")
        trainer.log_picture("predictions", grid)
        trainer.print(escape(f"pictures: {path}"))

    def _row(self, trainer: Trainer, entry: Mapping[str, Any], output: Mapping[str, Any]) -> list[Tensor]:
        image = entry["image"].detach().cpu()[:3].clamp(0, 255).to(torch.uint8)
        if getattr(trainer.model, "input_format", None) == "BGR":
            image = image.flip(0)
        metadata = trainer.metadata
        row = [draw_predictions(image, output, metadata, score_threshold=self.score_threshold)]
        if "instances" in entry or "sem_seg" in entry:
            row.append(draw_ground_truth({**entry, "image": image}, metadata))
        return row
