"""The hooks of a callback, and the order in which callbacks run."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from hydet.structures import Losses

from ..protocols import Batch, StateDict

if TYPE_CHECKING:
    from ..trainer import Trainer

__all__ = ["Callback", "CallbackPhase"]


class CallbackPhase(enum.IntEnum):
    """Phases of every hook, in the order in which they run.

    Attributes:
        AVERAGE_WEIGHTS: update averages of the weights, so that evaluations and checkpoints of a step include it.
        PREPARE_EVALUATION: prepare what an evaluation of this step uses, such as batch statistics.
        SHOW_PROGRESS: show the progress of training, so that it appears above the tables of an evaluation.
        DEFAULT: everything else.
        SAVE_CHECKPOINT: write checkpoints, which then include what other callbacks did in this step.
        AFTER_CHECKPOINT: use the checkpoint of this step.
    """

    AVERAGE_WEIGHTS = enum.auto()
    PREPARE_EVALUATION = enum.auto()
    SHOW_PROGRESS = enum.auto()
    DEFAULT = enum.auto()
    SAVE_CHECKPOINT = enum.auto()
    AFTER_CHECKPOINT = enum.auto()


class Callback:
    """Base class of callbacks. Every hook does nothing by default.

    Callbacks run on every process, sorted by ``phase`` and then in the order of the trainer's list. They read the
    trainer's attributes (``model``, ``step``, ``max_steps``, ``output_dir``, ``losses``, ``metrics`` and others) and
    never assign them. To act on the run they call its methods: ``request_stop``, ``finish_evaluation``,
    ``log_image``, ``print`` and ``save``.

    Attributes:
        phase: when the callback runs relative to others.
    """

    phase: ClassVar[CallbackPhase] = CallbackPhase.DEFAULT

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "on_picture" in cls.__dict__:
            raise TypeError(f"{cls.__name__}: the hook 'on_picture' is now called 'on_image'")
        if "order" in cls.__dict__:
            raise TypeError(
                f"{cls.__name__}: callbacks are no longer sorted by 'order'; set 'phase' to one of "
                f"{[phase.name for phase in CallbackPhase]} of hydet.engine.CallbackPhase"
            )

    def on_fit_start(self, trainer: Trainer) -> None:
        """Run before the first step; in a resumed run, after everything is restored."""

    def on_step_start(self, trainer: Trainer) -> None:
        """Run before a step fetches its data. ``trainer.step`` does not count the step yet."""

    def on_losses(self, trainer: Trainer, batch: Batch, losses: Losses) -> None:
        """Run after the forward pass of a batch, before its backward pass."""

    def on_gradients(self, trainer: Trainer) -> None:
        """Run when the gradients of a step are complete and clipped, before the optimizer changes the weights."""

    def on_step_end(self, trainer: Trainer) -> None:
        """Run after the optimizer changed the weights. ``trainer.step`` counts the step."""

    def on_evaluation_end(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """Run after an evaluation. ``metrics`` are also ``trainer.metrics``."""

    def on_image(self, trainer: Trainer, name: str, image: Tensor) -> None:
        """Run when ``trainer.log_image`` receives an image: ``(3, H, W)`` uint8 RGB."""

    def on_fit_end(self, trainer: Trainer) -> None:
        """Run after the last step of a run that did not fail."""

    def on_exception(self, trainer: Trainer, error: BaseException) -> None:
        """Run when the run ends with an error, or with ``TrainingInterrupted`` after a signal."""

    def evaluation_weights(self, trainer: Trainer) -> AbstractContextManager[object] | None:
        """Return a context in which the model holds the weights to evaluate and to keep, or None for the trained ones."""
        return None

    def state_dict(self) -> StateDict:
        """Return the state that a checkpoint stores: tensors, numbers, strings, and lists and dicts of them."""
        return {}

    def load_state_dict(self, state: StateDict) -> None:
        """Continue from a state that ``state_dict`` returned."""
