"""Draw predictions beside the ground truth after each evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from rich.markup import escape
from torch import Tensor

from hydet.distributed import is_main_process
from hydet.visualization import draw_ground_truth, draw_predictions, image_grid, save_png

from ..protocols import DeclaresInputFormat, Example
from .callback import Callback

if TYPE_CHECKING:
    from ..trainer import Trainer

__all__ = ["PredictionImages"]


class PredictionImages(Callback):
    """Write a grid of predictions and ground truth after each evaluation: ``<output_dir>/pictures/step_<n>.png``.

    The images are those of ``trainer.examples``, which ``Evaluation`` provides.

    Args:
        score_threshold: lowest score of the detections to draw.
        num_images: largest number of images in the grid.
        folder: path below the output folder.
    """

    def __init__(
        self, *, score_threshold: float = 0.5, num_images: int = 8, folder: str = "pictures"
    ) -> None:
        if not 0 <= score_threshold <= 1:
            raise ValueError(f"score_threshold must lie in [0, 1], got {score_threshold}")
        if num_images < 1:
            raise ValueError(f"num_images must be at least 1, got {num_images}")
        self.score_threshold = score_threshold
        self.num_images = num_images
        self.folder = folder

    def on_evaluation_end(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """Draw the examples of the evaluation, if there are any."""
        examples = trainer.examples[: self.num_images]
        if not examples or not is_main_process():
            return
        rows = [self._draw_row(trainer, example) for example in examples]
        grid = image_grid(rows, column_captions=("predictions", "ground truth"))
        path = save_png(grid, trainer.output_dir / self.folder / f"step_{trainer.step:08d}.png")
        trainer.log_image("predictions", grid)
        trainer.print(escape(f"images: {path}"))

    def _draw_row(self, trainer: Trainer, example: Example) -> list[Tensor]:
        entry, output = example
        image = entry["image"].detach().cpu()[:3].clamp(0, 255).to(torch.uint8)
        model = trainer.model
        if isinstance(model, DeclaresInputFormat) and model.input_format == "BGR":
            image = image.flip(0)
        row = [draw_predictions(image, output, trainer.metadata, score_threshold=self.score_threshold)]
        if "instances" in entry or "sem_seg" in entry:
            row.append(draw_ground_truth({**entry, "image": image}, trainer.metadata))
        return row
