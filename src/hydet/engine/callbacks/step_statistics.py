"""What happened since the last log line."""

from __future__ import annotations

import resource
import sys
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hydet.distributed import mean_over_processes, world_size

if TYPE_CHECKING:
    from ..trainer import Trainer

__all__ = ["LossWindow", "memory_in_gb"]


class LossWindow:
    """Collects steps without waiting for the GPU; ``summary`` waits once."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget the steps."""
        self._losses: dict[str, list[Tensor]] = {}
        self._seconds = self._data_seconds = 0.0
        self._images = self._steps = 0

    def add(self, trainer: Trainer) -> None:
        """Count the step that just ended."""
        for name, loss in trainer.losses.items():
            self._losses.setdefault(name, []).append(loss)
        self._seconds += trainer.step_seconds
        self._data_seconds += trainer.data_seconds
        self._images += trainer.images
        self._steps += 1

    def summary(self, trainer: Trainer) -> dict[str, float]:
        """Means over the steps since the last call and over processes; every process must call it.

        Returns:
            ``loss/<name>``, ``loss/total``, ``lr``, ``images_per_second`` (of all processes together),
            ``seconds_per_step``, ``data_fraction`` (of the time, waiting for data) and ``memory_gb``.
        """
        losses = {f"loss/{name}": float(torch.stack(found).mean()) for name, found in self._losses.items()}
        losses["loss/total"] = sum(losses.values())
        seconds = max(self._seconds, 1e-9)
        own = {
            **losses,
            "images_per_second": self._images / seconds,
            "seconds_per_step": self._seconds / max(self._steps, 1),
            "data_fraction": self._data_seconds / seconds,
            "memory_gb": memory_in_gb(trainer.device),
        }
        self.clear()
        means = mean_over_processes(own)
        means["images_per_second"] *= world_size()
        return {**means, "lr": trainer.learning_rate}


def memory_in_gb(device: torch.device) -> float:
    """The most memory used so far: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def is_due(step: int, every: int, max_steps: int) -> bool:
    """Whether something that happens every so many steps, and at the end, happens now."""
    return step % every == 0 or step == max_steps


def check_every(every: int) -> int:
    """``every``, if it is a number of steps."""
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise ValueError(f"every counts steps and must be at least 1, got {every!r}")
    return every
