"""The settings of a run before its first step, which checkpoints store beside the state.

The state of an optimizer or schedule holds its settings, too, such as the weight decay. Without the settings at the start,
a resumed run could not tell a value that the user changed from one that training changed.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypedDict, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from .callback_list import name_callbacks
from .callbacks.callback import Callback
from .protocols import StateDict

__all__ = [
    "GroupSettings",
    "HasScheduleSettings",
    "RunSettings",
    "SettingChange",
    "SettingValue",
    "changes_between",
    "describe_run",
    "is_same",
]

SettingValue: TypeAlias = str | int | float | bool | None


@runtime_checkable
class HasScheduleSettings(Protocol):
    """A learning-rate schedule whose ``state_dict`` does not hold its settings, since functions compute its rates."""

    @property
    def settings(self) -> Mapping[str, object]:
        """Values that determine the rates: numbers, strings, and lists of them."""
        ...


class GroupSettings(TypedDict):
    """One parameter group of an optimizer.

    Keys:
        parameters: names of the parameters, in order.
        options: options of the group, such as ``lr`` and ``weight_decay``; ``lr`` is the rate of the first step, and
            ``initial_lr`` the rate before the schedule if there is one.
    """

    parameters: list[str]
    options: StateDict


class RunSettings(TypedDict):
    """Settings at the start of a run. The keys are part of the file format.

    Keys:
        values: arguments of the trainer by the key that a user types, such as ``trainer.clip_norm``.
        optimizer: full name of the optimizer's class.
        groups: parameter groups of the optimizer.
        scheduler: full name of the schedule's class, or None.
        schedule: settings of a schedule that has them; see ``HasScheduleSettings``.
        schedule_state: state dict of the schedule before the first step.
        callbacks: arguments of the callbacks that are numbers, strings or None, by class name; see ``name_callbacks``.
    """

    values: dict[str, SettingValue]
    optimizer: str
    groups: list[GroupSettings]
    scheduler: str | None
    schedule: dict[str, object]
    schedule_state: StateDict
    callbacks: dict[str, dict[str, SettingValue]]


@dataclass(frozen=True)
class SettingChange:
    """A value that differs between a checkpoint and the run that continues it.

    Args:
        key: name of the value, such as ``optimizer.lr``.
        old: value of the checkpoint.
        new: value of the run.
    """

    key: str
    old: object
    new: object

    def __str__(self) -> str:
        return f"{self.key}: {_shown(self.old)} -> {_shown(self.new)}"


def describe_run(
    *,
    model: nn.Module,
    optimizer: Optimizer,
    scheduler: LRScheduler | None,
    callbacks: Sequence[Callback],
    values: Mapping[str, SettingValue],
) -> RunSettings:
    """Return the settings of a run; to be called before its first step."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups: list[GroupSettings] = []
    for number, group in enumerate(optimizer.param_groups):
        parameters = [
            names.get(id(parameter), f"parameter {i} of group {number}, outside the model")
            for i, parameter in enumerate(group["params"])
        ]
        options = {key: copy.deepcopy(value) for key, value in group.items() if key != "params"}
        groups.append({"parameters": parameters, "options": options})
    return {
        "values": dict(values),
        "optimizer": _class_name(optimizer),
        "groups": groups,
        "scheduler": None if scheduler is None else _class_name(scheduler),
        "schedule": dict(scheduler.settings) if isinstance(scheduler, HasScheduleSettings) else {},
        "schedule_state": {} if scheduler is None else copy.deepcopy(scheduler.state_dict()),
        "callbacks": {name: _arguments(callback) for name, callback in name_callbacks(callbacks).items()},
    }


def changes_between(
    old: Mapping[str, object], new: Mapping[str, object], prefix: str, *, only_common: bool = False
) -> list[SettingChange]:
    """Return the values that differ between two mappings.

    Args:
        old: values of the checkpoint.
        new: values of the run.
        prefix: prefix of the keys of the changes.
        only_common: compare only keys of both mappings; other keys count as None.
    """
    keys = [key for key in {**old, **new} if not only_common or (key in old and key in new)]
    return [
        SettingChange(f"{prefix}{key}", old.get(key), new.get(key))
        for key in keys
        if not is_same(old.get(key), new.get(key))
    ]


def is_same(a: object, b: object) -> bool:
    """Compare two values of settings: tensors by content, lists and tuples alike, mappings by their common names.

    Versions of torch add names to the state of schedules, so a name that only one mapping has makes no difference.
    Other keys, such as the milestones of ``MultiStepLR``, do.
    """
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        if a is None or b is None:
            return False
        first, second = (torch.as_tensor(value, device="cpu").double() for value in (a, b))
        return torch.equal(first, second)
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        if any(not isinstance(key, str) for key in a.keys() ^ b.keys()):
            return False
        return all(is_same(a[key], b[key]) for key in a.keys() & b.keys())
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(is_same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b) or (a != a and b != b)  # NaN


def _arguments(callback: Callback) -> dict[str, SettingValue]:
    """Return the arguments of a callback that are plain values and that it keeps as attributes of the same name."""
    arguments: dict[str, SettingValue] = {}
    for name in inspect.signature(type(callback)).parameters:
        value: Any = getattr(callback, name, callback)  # the callback itself stands for no attribute
        if value is None or type(value) in (str, int, float, bool):  # no enumerations
            arguments[name] = value
    return arguments


def _class_name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _shown(value: object) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else f"{value}"
    text = " ".join(text.split())
    return text if len(text) <= 100 else f"{text[:97]}..."
