"""Average losses, speed and memory over the steps between two log entries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hydet.distributed import mean_over_processes, world_size

from ..memory import peak_memory_gb

if TYPE_CHECKING:
    from ..trainer import Trainer

__all__ = ["StepStatistics"]


class StepStatistics:
    """Collect the losses and times of steps. Only ``summarize`` waits for the GPU, once per call."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all steps."""
        self._losses: dict[str, list[Tensor]] = {}
        self._seconds = self._data_seconds = 0.0
        self._images = self._steps = 0

    def add(self, trainer: Trainer) -> None:
        """Add the step that has just ended."""
        for name, loss in trainer.losses.items():
            self._losses.setdefault(name, []).append(loss)
        self._seconds += trainer.step_seconds
        self._data_seconds += trainer.data_seconds
        self._images += trainer.images
        self._steps += 1

    def summarize(self, trainer: Trainer) -> dict[str, float]:
        """Average over the steps since the last call and over processes; every process must call this method.

        Returns:
            ``loss/<name>``, ``loss/total``, ``lr``, ``images_per_second`` (of all processes together),
            ``seconds_per_step``, ``data_fraction`` (fraction of the time that steps waited for data) and, where the
            system reports it, ``memory_gb``.
        """
        values = {f"loss/{name}": float(torch.stack(steps).mean()) for name, steps in self._losses.items()}
        values["loss/total"] = sum(values.values())
        seconds = max(self._seconds, 1e-9)
        values["images_per_second"] = self._images / seconds
        values["seconds_per_step"] = self._seconds / max(self._steps, 1)
        values["data_fraction"] = self._data_seconds / seconds
        memory = peak_memory_gb(trainer.device)
        if memory is not None:
            values["memory_gb"] = memory
        self.clear()
        means = mean_over_processes(values)
        means["images_per_second"] *= world_size()
        return {**means, "lr": trainer.learning_rate}
