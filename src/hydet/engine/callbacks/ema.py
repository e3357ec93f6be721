"""An exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .callback import Callback

if TYPE_CHECKING:
    from ..trainer import Trainer

__all__ = ["EMA"]


class EMA(Callback):
    """Evaluates, and stores in ``model.safetensors``, a moving average of the weights.

    Args:
        decay: of the average, once it is warm.
        warm_up: begin with ``(1 + n) / (10 + n)`` after n steps where that is smaller, so that the first weights are
            soon forgotten.

    Source: Polyak and Juditsky 1992; the warm-up as in TensorFlow's ``ExponentialMovingAverage``.
    """

    order = -100  # evaluations and checkpoints of a step see the average of that step

    def __init__(self, *, decay: float = 0.999, warm_up: bool = True) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must lie in [0, 1), got {decay}")
        self.decay = decay
        self.warm_up = warm_up
        self.updates = 0
        self._average: dict[str, Tensor] = {}

    def on_fit_start(self, trainer: Trainer) -> None:
        state = trainer.model.state_dict()
        if not self._average:
            self._average = {name: value.detach().clone() for name, value in state.items()}
        else:
            self._average = {name: self._average[name].to(value.device) for name, value in state.items()}

    @torch.no_grad()
    def on_step_end(self, trainer: Trainer) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.warm_up else self.decay
        averages, values = [], []
        for name, value in trainer.model.state_dict().items():
            if value.is_floating_point():
                averages.append(self._average[name])
                values.append(value.detach())
            else:
                self._average[name].copy_(value)
        torch._foreach_lerp_(averages, values, 1 - decay)

    @contextmanager
    def evaluation_weights(self, trainer: Trainer) -> Iterator[None]:
        """The model holds the average inside."""
        if not self._average:
            yield
            return
        trained = {name: value.detach().clone() for name, value in trainer.model.state_dict().items()}
        trainer.model.load_state_dict(self._average)
        try:
            yield
        finally:
            trainer.model.load_state_dict(trained)

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "average": dict(self._average)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = int(state["updates"])
        self._average = {name: value.clone() for name, value in state["average"].items()}
