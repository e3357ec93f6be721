"""Collect and restore the state of everything that training changes."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NotRequired, TypedDict

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from .callback_list import name_callbacks
from .callbacks.callback import Callback
from .checkpoint_folder import Checkpoint
from .protocols import Batch, KeepsTrainingState, StateDict, StatefulLoader
from .seeding import RandomState

__all__ = ["StatefulParts", "TrainingState"]


class TrainingState(TypedDict):
    """Content of ``training_state.pt``. The keys are part of the file format.

    Keys:
        step: number of optimizer steps done.
        metrics: metrics of the latest evaluation.
        random: states of the random number generators, one entry per process.
        optimizer: state dict of the optimizer.
        scheduler: state dict of the learning-rate schedule, or None.
        scaler: state dict of the loss scaler; empty if it is disabled.
        loader: position of the training loader, or None if the loader has no state.
        modules: ``training_state()`` of the modules that have one, by module name.
        callbacks: state dicts of the callbacks, by class name; see ``name_callbacks``.
        model: trained weights, where ``model.safetensors`` holds averages.
    """

    step: int
    metrics: dict[str, float]
    random: list[RandomState]
    optimizer: StateDict
    scheduler: StateDict | None
    scaler: StateDict
    loader: StateDict | None
    modules: dict[str, StateDict]
    callbacks: dict[str, StateDict]
    model: NotRequired[dict[str, torch.Tensor]]


@dataclass(frozen=True)
class StatefulParts:
    """The objects of a run that training changes.

    Args:
        model: the model.
        optimizer: the optimizer.
        scheduler: the learning-rate schedule, or None.
        scaler: the loss scaler, possibly disabled.
        loader: the training loader, with or without a state.
        callbacks: the callbacks.
    """

    model: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler | None
    scaler: torch.amp.GradScaler
    loader: Iterable[Batch]
    callbacks: Sequence[Callback]

    def state(self, *, step: int, metrics: dict[str, float], random: list[RandomState]) -> TrainingState:
        """Return the state of all parts except the model's weights.

        Args:
            step: number of optimizer steps done.
            metrics: metrics of the latest evaluation.
            random: states of the random number generators of each process.
        """
        return {
            "step": step,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict() if self.scheduler is not None else None,
            "scaler": self.scaler.state_dict(),
            "random": random,
            "loader": self.loader.state_dict() if isinstance(self.loader, StatefulLoader) else None,
            "modules": {
                name: module.training_state()
                for name, module in self.model.named_modules()
                if isinstance(module, KeepsTrainingState)
            },
            "callbacks": {name: c.state_dict() for name, c in name_callbacks(self.callbacks).items()},
            "metrics": metrics,
        }

    def restore(self, checkpoint: Checkpoint) -> TrainingState:
        """Restore all parts and return the state, whose random states the caller restores last.

        Raises:
            ValueError: if the checkpoint does not fit the parts.
        """
        state: TrainingState = checkpoint.training_state()  # type: ignore[assignment]  # the keys are fixed
        try:
            self.model.load_state_dict(state.get("model") or checkpoint.weights())
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"cannot resume from {checkpoint.path}: it does not fit this run ({reason}); "
                "init_from takes weights only"
            ) from error
        self._restore_scheduler(state["scheduler"], checkpoint)
        if state["scaler"] and self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        if state["loader"] is not None and isinstance(self.loader, StatefulLoader):
            self.loader.load_state_dict(state["loader"])
        else:
            warnings.warn(
                "the training loader has no position to continue from: it starts again from its first batch",
                stacklevel=2,
            )
        modules = dict(self.model.named_modules())
        for name, module_state in state["modules"].items():
            module = modules[name]
            if not isinstance(module, KeepsTrainingState):
                raise ValueError(
                    f"cannot resume from {checkpoint.path}: it holds training state for {name or 'the model'}, "
                    f"but {type(module).__name__} has no load_training_state"
                )
            module.load_training_state(module_state)
        for name, callback in name_callbacks(self.callbacks).items():
            if name in state["callbacks"]:
                callback.load_state_dict(state["callbacks"][name])
        return state

    def _restore_scheduler(self, state: StateDict | None, checkpoint: Checkpoint) -> None:
        if (self.scheduler is None) != (state is None):
            raise ValueError(
                f"cannot resume from {checkpoint.path}: only one of the two runs has a learning-rate schedule"
            )
        if self.scheduler is not None and state is not None:
            self.scheduler.load_state_dict(state)
