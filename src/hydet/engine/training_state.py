"""Collect and restore the state of everything that training changes."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, cast

import torch
from omegaconf import OmegaConf
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from hydet.data import DataError

from .callback_list import name_callbacks
from .callbacks.callback import Callback
from .checkpoint_folder import STATE, Checkpoint
from .checkpoint_values import ConfigLike
from .protocols import Batch, KeepsTrainingState, StateDict, StatefulLoader
from .resumed_optimizer import (
    adapt_optimizer_state,
    add_missing_buffers,
    has_rates_of_its_step,
    match_memory_formats,
    restart_schedule,
)
from .run_settings import HasScheduleSettings, RunSettings, SettingChange
from .seeding import RandomState
from .setting_changes import (
    SettingComparison,
    assume_settings,
    compare_configs,
    compare_settings,
    describe_changes,
)
from .training_state_values import (
    check_like,
    check_optimizer_values,
    check_training_state,
    naming_state_errors,
)

__all__ = ["RestoredRun", "StatefulParts", "TrainingState"]


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
        settings: settings at the start of the run; checkpoints of version 0.2 and older have none.
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
    settings: NotRequired[RunSettings]
    model: NotRequired[dict[str, torch.Tensor]]


@dataclass(frozen=True)
class RestoredRun:
    """The state from which a run continues.

    Args:
        state: state of the checkpoint.
        changes: one line for each setting that differs from that of the checkpoint.
        seed_differs: True if the random numbers start from another seed instead of continuing.
    """

    state: TrainingState
    changes: list[str]
    seed_differs: bool


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
        settings: settings of the run before its first step.
        config: config of the run, or None.
    """

    model: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler | None
    scaler: torch.amp.GradScaler
    loader: Iterable[Batch]
    callbacks: Sequence[Callback]
    settings: RunSettings
    config: ConfigLike | None

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
            "settings": self.settings,
        }

    def restore(self, checkpoint: Checkpoint) -> RestoredRun:
        """Restore all parts except the random numbers, which the caller restores last.

        Settings that differ from those of the checkpoint apply: the state replaces what training changed, never what
        the user did.

        Raises:
            ValueError: if the checkpoint does not fit the parts, or a setting cannot change.
        """
        state, file = _read_state(checkpoint), checkpoint.path / STATE
        self._check_types(state, file)
        old_config = _config_of(checkpoint)
        config_changes = compare_configs(old_config, self.config)
        try:
            old = state.get("settings") or assume_settings(
                dict(state), old_config, config_changes, self.settings
            )
            comparison = compare_settings(old, self.settings)
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise DataError(f"{file}: settings cannot be read ({type(error).__name__}: {error})") from error
        except ValueError as error:
            raise ValueError(
                f"cannot resume from {checkpoint.path}: {error}; resume with the values of that run, or start a new run "
                f"from its weights with init_from={checkpoint.path}"
            ) from error
        try:
            self.model.load_state_dict(state.get("model") or checkpoint.weights())
            self.optimizer.load_state_dict(
                adapt_optimizer_state(state["optimizer"], old["groups"], self.settings["groups"])
            )
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"cannot resume from {checkpoint.path}: it does not fit this run ({reason}); "
                "init_from takes weights only"
            ) from error
        names: dict[torch.Tensor, str] = {p: name for name, p in self.model.named_parameters()}
        check_optimizer_values(self.optimizer, names, file)
        add_missing_buffers(self.optimizer)
        match_memory_formats(self.optimizer)
        with naming_state_errors(file, "scheduler"):
            rate_changes = self._restore_schedule(state, comparison)
        if state["scaler"] and self.scaler.is_enabled():
            with naming_state_errors(file, "scaler"):
                self.scaler.load_state_dict(state["scaler"])
        with naming_state_errors(file, "loader"):
            self._restore_loader(state["loader"])
        with naming_state_errors(file, "modules"):
            self._restore_modules(state["modules"], checkpoint)
        for name, callback in name_callbacks(self.callbacks).items():
            if name in state["callbacks"]:
                with naming_state_errors(file, f"callbacks[{name}]"):
                    callback.load_state_dict(state["callbacks"][name])
        lines = describe_changes([*comparison.changes, *rate_changes], config_changes)
        return RestoredRun(state, lines, comparison.seed_differs)

    def _check_types(self, state: TrainingState, file: Path) -> None:
        """Check the values of each part against those that it has now."""
        present = self.state(step=0, metrics={}, random=[])
        keys: tuple[Literal["scheduler", "scaler", "loader", "modules", "callbacks"], ...]
        keys = ("scheduler", "scaler", "loader", "modules", "callbacks")
        for key in keys:
            check_like(state[key], present[key], f"{file}: {key}")
        steps = (state["scheduler"] or {}).get("last_epoch", 0)  # a ChainedScheduler has none
        if not isinstance(steps, int):
            raise DataError(f"{file}: scheduler['last_epoch'] must be a number of steps")

    def _restore_schedule(self, state: TrainingState, comparison: SettingComparison) -> list[SettingChange]:
        """Restore the schedule; return the change of its learning rate that no setting explains."""
        restored = state["scheduler"]
        steps = int(state["step"])
        if comparison.schedule_differs or self.scheduler is None or restored is None:
            if comparison.schedule_differs:
                restart_schedule(self.optimizer, self.scheduler, self.settings, steps=steps)
            return []
        self.scheduler.load_state_dict(restored)
        has_known_settings = "settings" in state and isinstance(self.scheduler, HasScheduleSettings)
        if has_known_settings or has_rates_of_its_step(self.scheduler):
            return []
        before = self.optimizer.param_groups[0]["lr"]
        restart_schedule(self.optimizer, self.scheduler, self.settings, steps=steps)
        after = self.optimizer.param_groups[0]["lr"]
        return [SettingChange("learning rate", before, after)]

    def _restore_loader(self, state: StateDict | None) -> None:
        if state is not None and isinstance(self.loader, StatefulLoader):
            self.loader.load_state_dict(state)
        else:
            warnings.warn(
                "the training loader has no position to continue from: it starts again from its first batch",
                stacklevel=3,
            )

    def _restore_modules(self, states: Mapping[str, StateDict], checkpoint: Checkpoint) -> None:
        modules = dict(self.model.named_modules())
        for name, module_state in states.items():
            module = modules.get(name)
            if not isinstance(module, KeepsTrainingState):
                raise ValueError(
                    f"cannot resume from {checkpoint.path}: it holds training state for {name or 'the model'}, "
                    f"but {type(module).__name__} has no load_training_state"
                )
            module.load_training_state(module_state)


def _read_state(checkpoint: Checkpoint) -> TrainingState:
    """Read the state of a checkpoint and check that it has what every run writes.

    Raises:
        ValueError: if the file is damaged; the message names it.
    """
    state = checkpoint.training_state()
    check_training_state(state, checkpoint.path / STATE)
    return cast("TrainingState", state)


def _config_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the config of a checkpoint, which only serves to name changes; an empty one if it cannot be read."""
    try:
        config = OmegaConf.to_container(checkpoint.config, resolve=False)
    except ValueError as error:
        warnings.warn(f"{error}; changes of the config cannot be named", stacklevel=2)
        return {}
    return {str(key): value for key, value in config.items()} if isinstance(config, dict) else {}
