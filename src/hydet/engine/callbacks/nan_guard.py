"""Stop before a loss that is not a number spoils the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .callback import Callback

if TYPE_CHECKING:
    from ..trainer import Trainer

__all__ = ["NanGuard"]

FILES_SHOWN = 8


class NanGuard(Callback):
    """Raises ``FloatingPointError`` with the losses and the files of the batch, before the weights change.

    It waits for the GPU once a batch. Gradients are looked at where the trainer clips their norm; under fp16 they may
    overflow, which the loss scaling handles.
    """

    def __init__(self) -> None:
        self._files: list[str] = []

    def on_step_start(self, trainer: Trainer) -> None:
        self._files = []

    def on_losses(
        self, trainer: Trainer, batch: Sequence[Mapping[str, Any]], losses: Mapping[str, Tensor]
    ) -> None:
        self._files.extend(_name(entry) for entry in batch)
        values = torch.stack([loss.detach().float() for loss in losses.values()])
        if bool(torch.isfinite(values).all()):
            return
        wrong = [f"{name} is {value}" for name, value in zip(losses, values.tolist()) if not _finite(value)]
        raise FloatingPointError(
            f"step {trainer.step + 1}: loss {', '.join(wrong)}; {self._batch([*map(_name, batch)])}"
        )

    def on_gradients(self, trainer: Trainer) -> None:
        norm = trainer.gradient_norm
        if norm is None or trainer.scaler.is_enabled() or bool(torch.isfinite(norm)):
            return
        raise FloatingPointError(
            f"step {trainer.step + 1}: losses are finite, but the norm of their gradients is {float(norm)}; "
            f"{self._batch(self._files)}"
        )

    @staticmethod
    def _batch(files: list[str]) -> str:
        more = f" and {len(files) - FILES_SHOWN} more" if len(files) > FILES_SHOWN else ""
        return f"the batch: {', '.join(files[:FILES_SHOWN])}{more}"


def _name(entry: Mapping[str, Any]) -> str:
    return str(entry.get("file_name") or f"image_id {entry.get('image_id')}")


def _finite(value: float) -> bool:
    return value - value == 0
