"""Stop before a non-finite loss corrupts the weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from hydet.structures import Losses, ModelInput

from ..protocols import Batch
from .callback import Callback

if TYPE_CHECKING:
    from ..trainer import Trainer

__all__ = ["NanGuard"]

MAX_FILES = 8


class NanGuard(Callback):
    """Raise ``FloatingPointError`` with the losses and the files of the batch before the weights change.

    The check waits for the GPU once per batch. Gradients are checked where the trainer clips their norm. Under float16
    they may overflow, which the loss scaler handles.
    """

    def __init__(self) -> None:
        self._files: list[str] = []

    def on_step_start(self, trainer: Trainer) -> None:
        """Forget the files of the previous step."""
        self._files = []

    def on_losses(self, trainer: Trainer, batch: Batch, losses: Losses) -> None:
        """Check the losses of a batch.

        Raises:
            FloatingPointError: if one of them is NaN or infinite.
        """
        self._files.extend(_name(entry) for entry in batch)
        values = torch.stack([loss.detach().float() for loss in losses.values()])
        if bool(torch.isfinite(values).all()):
            return
        bad = [
            f"{name} is {value}"
            for name, value in zip(losses, values.tolist(), strict=True)
            if not math.isfinite(value)
        ]
        raise FloatingPointError(
            f"step {trainer.step + 1}: loss {', '.join(bad)}; {_list_files([*map(_name, batch)])}"
        )

    def on_gradients(self, trainer: Trainer) -> None:
        """Check the norm of the gradients of a step.

        Raises:
            FloatingPointError: if it is NaN or infinite.
        """
        norm = trainer.gradient_norm
        if norm is None or trainer.precision.scaler.is_enabled() or bool(torch.isfinite(norm)):
            return
        raise FloatingPointError(
            f"step {trainer.step + 1}: losses are finite, but the norm of their gradients is {float(norm)}; "
            f"{_list_files(self._files)}"
        )


def _list_files(files: list[str]) -> str:
    more = f" and {len(files) - MAX_FILES} more" if len(files) > MAX_FILES else ""
    return f"the batch: {', '.join(files[:MAX_FILES])}{more}"


def _name(entry: ModelInput) -> str:
    return str(entry.get("file_name") or f"image_id {entry.get('image_id')}")
