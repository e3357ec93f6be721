"""Restore an optimizer and a learning-rate schedule, with the options that the user changed since the checkpoint."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Sequence

import torch
from torch.optim import Adam, AdamW, Optimizer, RMSprop
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from .protocols import StateDict
from .run_settings import GroupSettings, RunSettings, is_same

__all__ = [
    "adapt_optimizer_state",
    "add_missing_buffers",
    "has_rates_of_its_step",
    "match_memory_formats",
    "restart_schedule",
]

# Options that need a tensor for each parameter, which the state lacks if the option was off before. Zeros are its first
# value in a new run. SGD creates its momentum by itself.
_BUFFERS: Sequence[tuple[tuple[type[Optimizer], ...], str, str]] = (
    ((Adam, AdamW), "amsgrad", "max_exp_avg_sq"),
    ((RMSprop,), "centered", "grad_avg"),
    ((RMSprop,), "momentum", "momentum_buffer"),
)


def adapt_optimizer_state(
    state: StateDict, old: Sequence[GroupSettings], new: Sequence[GroupSettings]
) -> StateDict:
    """Return the state dict of an optimizer with the groups and the changed options of another run.

    Options that did not change keep their values in ``state``, which training may have changed. The state of each
    parameter moves with its name; a parameter that was not trained before starts without one.

    Args:
        state: state dict of the optimizer.
        old: parameter groups at the start of the run that wrote the state.
        new: parameter groups of the run that continues.
    """
    index_of: dict[str, int] = {}
    owner_of: dict[str, int] = {}
    for group_number, (settings, group) in enumerate(zip(old, state["param_groups"], strict=True)):
        for name, index in zip(settings["parameters"], group["params"], strict=True):
            index_of[name], owner_of[name] = index, group_number
    groups: list[StateDict] = []
    values: dict[int, object] = {}
    count = 0
    for settings in new:
        options = copy.deepcopy(settings["options"])
        owner = next((owner_of[name] for name in settings["parameters"] if name in owner_of), None)
        if owner is not None:
            restored, before = state["param_groups"][owner], old[owner]["options"]
            options |= {
                key: value
                for key, value in restored.items()
                if key != "params"
                and (key not in options or key not in before or is_same(before[key], options[key]))
            }
        indices = range(count, count + len(settings["parameters"]))
        groups.append({**options, "params": list(indices)})
        for name, index in zip(settings["parameters"], indices, strict=True):
            if name in index_of and index_of[name] in state["state"]:
                values[index] = state["state"][index_of[name]]
        count += len(indices)
    of_parameters = set(index_of.values())
    others = {key: value for key, value in state["state"].items() if key not in of_parameters}
    return {**state, "state": {**others, **values}, "param_groups": groups}


def add_missing_buffers(optimizer: Optimizer) -> None:
    """Add the tensors of each parameter that an option needs which was off when the state was written."""
    for classes, option, name in _BUFFERS:
        if not isinstance(optimizer, classes):
            continue
        for group in optimizer.param_groups:
            states = [(p, optimizer.state[p]) for p in group["params"] if optimizer.state.get(p)]
            for parameter, state in states if group.get(option) else ():
                if state.get(name) is None:
                    state[name] = torch.zeros_like(parameter)


def match_memory_formats(optimizer: Optimizer) -> None:
    """Store the tensors of the state in the order of their parameters.

    ``training=fast`` stores weights channels last, and the checkpoint may come from a run without it. torch's fused
    optimizers on a CPU go through weights and state in the order of memory and do not check that it is the same.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state.get(parameter, {})
            for name, value in state.items():
                if not isinstance(value, torch.Tensor) or value.shape != parameter.shape:
                    continue
                if value.stride() != parameter.stride():
                    state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def has_rates_of_its_step(scheduler: LRScheduler) -> bool:
    """Return False if the functions of a ``LambdaLR`` compute other learning rates than its optimizer has.

    No state dict holds functions, so their results are compared.
    """
    if not isinstance(scheduler, LambdaLR):
        return True
    rates = [
        float(base) * factor(scheduler.last_epoch)
        for base, factor in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
    ]
    groups = scheduler.optimizer.param_groups
    return all(
        math.isclose(rate, float(group["lr"]), rel_tol=1e-6)
        for rate, group in zip(rates, groups, strict=True)
    )


def restart_schedule(
    optimizer: Optimizer, scheduler: LRScheduler | None, settings: RunSettings, *, steps: int
) -> None:
    """Give an optimizer the learning rates that its schedule has after ``steps`` steps from the start of the run.

    Args:
        optimizer: optimizer with restored options.
        scheduler: schedule of the optimizer; None for the constant rates in ``settings``.
        settings: settings of the run before its first step.
        steps: number of steps done.
    """
    restored = [dict(group) for group in optimizer.param_groups]
    for group, fresh in zip(optimizer.param_groups, settings["groups"], strict=True):
        group.update(copy.deepcopy(fresh["options"]))
    if scheduler is not None:
        scheduler.load_state_dict(copy.deepcopy(settings["schedule_state"]))
        if isinstance(scheduler, LambdaLR) and steps:  # its rates depend on the step alone
            scheduler.last_epoch, scheduler._step_count = steps - 1, steps
            steps = 1
        with warnings.catch_warnings():
            # torch expects a step of the optimizer before each of the schedule.
            warnings.simplefilter("ignore", UserWarning)
            for _ in range(steps):
                scheduler.step()
    # Some schedules also change other options, such as the momentum. All others are as they were restored.
    for group, old, fresh in zip(optimizer.param_groups, restored, settings["groups"], strict=True):
        for key, value in old.items():
            if key in ("params", "lr", "initial_lr"):
                continue
            if is_same(group[key], fresh["options"].get(key, group[key])):
                group[key] = value
