"""An exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..protocols import StateDict
from .callback import Callback, CallbackPhase

if TYPE_CHECKING:
    from ..trainer import Trainer

__all__ = ["EMA"]


class EMA(Callback):
    """Evaluate a moving average of the weights, and store it in ``model.safetensors``.

    Args:
        decay: weight of the previous average in each update.
        warm_up: use a decay of ``(1 + n) / (10 + n)`` after n steps while that is smaller than ``decay``, so that the
            average soon forgets the initial weights.

    Source: Polyak and Juditsky 1992; the warm-up is that of TensorFlow's ``ExponentialMovingAverage``.
    """

    phase = CallbackPhase.AVERAGE_WEIGHTS

    def __init__(self, *, decay: float = 0.999, warm_up: bool = True) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must lie in [0, 1), got {decay}")
        self.decay = decay
        self.warm_up = warm_up
        self.updates = 0
        self._average: dict[str, Tensor] = {}

    def on_fit_start(self, trainer: Trainer) -> None:
        """Start from the model's weights, or move a restored average to the model's device."""
        state = trainer.model.state_dict()
        if not self._average:
            self._average = {name: value.detach().clone() for name, value in state.items()}
        else:
            self._average = {name: self._average[name].to(value.device) for name, value in state.items()}

    @torch.no_grad()
    def on_step_end(self, trainer: Trainer) -> None:
        """Update the average; integer buffers, which have no average, are copied."""
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
        """Let the model hold the average inside the context."""
        if not self._average:
            yield
            return
        trained = {name: value.detach().clone() for name, value in trainer.model.state_dict().items()}
        trainer.model.load_state_dict(self._average)
        try:
            yield
        finally:
            trainer.model.load_state_dict(trained)

    def state_dict(self) -> StateDict:
        """Return the average and the number of updates."""
        return {"updates": self.updates, "average": dict(self._average)}

    def load_state_dict(self, state: StateDict) -> None:
        """Continue from a state that ``state_dict`` returned."""
        self.updates = int(state["updates"])
        self._average = {name: value.clone() for name, value in state["average"].items()}
