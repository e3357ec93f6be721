"""What a callback can hook into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from ..trainer import Trainer

__all__ = ["Callback"]


class Callback:
    """Something that happens around the training loop; every hook does nothing unless a subclass says so.

    Callbacks run on every process, in the order of ``order`` and then of the list given to the trainer. What they
    need they read from ``trainer``: ``model``, ``step`` (optimizer steps done), ``max_steps``, ``output_dir``,
    ``losses``, ``metrics``, ``batches``... ``on_step_start`` and ``on_step_end`` see ``step`` before and after it
    counted.
    """

    order: int = 0

    def on_fit_start(self, trainer: Trainer) -> None:
        """Before the first step; after a resume, when everything is restored."""

    def on_step_start(self, trainer: Trainer) -> None:
        """Before the step's data is fetched."""

    def on_losses(
        self, trainer: Trainer, batch: Sequence[Mapping[str, Any]], losses: Mapping[str, Tensor]
    ) -> None:
        """After the forward pass of a batch, before its backward pass."""

    def on_gradients(self, trainer: Trainer) -> None:
        """Gradients are there and clipped; the weights have not changed yet."""

    def on_step_end(self, trainer: Trainer) -> None:
        """The weights have changed and ``trainer.step`` has counted it."""

    def on_evaluation_end(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """After an evaluation; ``trainer.metrics`` are the same."""

    def on_picture(self, trainer: Trainer, name: str, picture: Tensor) -> None:
        """Somebody drew a picture for the log: ``(3, H, W)`` uint8 RGB."""

    def on_fit_end(self, trainer: Trainer) -> None:
        """After the last step of a run that came to its end."""

    def on_exception(self, trainer: Trainer, error: BaseException) -> None:
        """The run ends early: an error, or ``TrainingInterrupted``. Release what you hold."""

    def evaluation_weights(self, trainer: Trainer) -> AbstractContextManager[Any]:
        """A context in which the model has the weights to evaluate and to keep, where they are not the trained ones."""
        return nullcontext()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold for this callback to continue: tensors, numbers, strings, lists and dicts."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what ``state_dict`` gave."""
