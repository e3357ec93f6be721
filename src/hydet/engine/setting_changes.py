"""Find the settings that differ between a checkpoint and the run that continues it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import OmegaConf

from .checkpoint_values import ConfigLike, to_yaml
from .protocols import StateDict
from .run_settings import GroupSettings, RunSettings, SettingChange, changes_between, is_same

__all__ = [
    "SettingComparison",
    "assume_settings",
    "compare_configs",
    "compare_settings",
    "describe_changes",
]

# Keys that say where a run reads and writes, which changes nothing that it computes.
_PATHS = ("output_dir", "resume", "init_from", "hydra")
# Sections whose keys are compared even if only one config has them. Others gain and lose keys from version to version.
_SECTIONS = ("optimizer", "schedule", "parameter_groups", "trainer", "callbacks", "sampler")
_MAX_LINES = 40


@dataclass(frozen=True)
class SettingComparison:
    """The differences that decide how the state of a checkpoint is restored.

    Args:
        changes: values that differ.
        groups_differ: True if the parameters are in other groups.
        schedule_differs: True if the learning rates have to be computed anew.
    """

    changes: list[SettingChange]
    groups_differ: bool
    schedule_differs: bool

    @property
    def seed_differs(self) -> bool:
        """True if the random numbers have to start anew."""
        return any(change.key == "seed" for change in self.changes)


def compare_settings(old: RunSettings, new: RunSettings) -> SettingComparison:
    """Compare the settings of a checkpoint with those of the run that continues it.

    Raises:
        ValueError: if their optimizers have different classes.
    """
    if old["optimizer"] != new["optimizer"]:
        raise ValueError(
            f"the optimizer is {new['optimizer']} instead of {old['optimizer']}, and their states differ in kind"
        )
    groups_differ = [g["parameters"] for g in old["groups"]] != [g["parameters"] for g in new["groups"]]
    options = _option_changes(old["groups"], new["groups"])
    if groups_differ:
        options.append(_group_change(old["groups"], new["groups"]))
    schedule, schedule_differs = _schedule_changes(old, new)
    schedule_differs |= groups_differ or any(change.key == "optimizer.lr" for change in options)
    others = changes_between(old["values"], new["values"], "", only_common=True)
    for name in sorted(old["callbacks"].keys() & new["callbacks"].keys()):
        others += changes_between(
            old["callbacks"][name], new["callbacks"][name], f"callbacks.{name}.", only_common=True
        )
    return SettingComparison([*options, *schedule, *others], groups_differ, schedule_differs)


def assume_settings(
    state: StateDict, config: Mapping[str, Any], config_changes: Sequence[SettingChange], new: RunSettings
) -> RunSettings:
    """Return the settings of a checkpoint of version 0.2 or older, which stores none.

    They come from the state of the optimizer and from the config beside it. Settings that neither holds are assumed to be
    those of the run that continues.

    Args:
        state: content of ``training_state.pt``.
        config: config of the checkpoint, possibly empty.
        config_changes: differences of the configs of the two runs.
        new: settings of the run that continues.

    Raises:
        ValueError: if the parameter groups have other sizes, since the checkpoint does not name their parameters.
    """
    old_groups = state["optimizer"]["param_groups"]
    sizes = [[len(g["params"]) for g in old_groups], [len(g["parameters"]) for g in new["groups"]]]
    if sizes[0] != sizes[1]:
        raise ValueError(f"its parameter groups have the sizes {sizes[0]}, those of this run {sizes[1]}")
    # Some schedules of torch change the momentum, too, so its current value says nothing about its setting.
    scheduler_state = state["scheduler"]
    unknown = {"params"}
    if scheduler_state is not None and "lr_lambdas" not in scheduler_state:
        unknown |= {"momentum", "betas"}
    if scheduler_state is not None:
        unknown.add("lr")  # initial_lr is the setting
    groups: list[GroupSettings] = [
        {
            "parameters": group["parameters"],
            "options": {key: value for key, value in old_group.items() if key not in unknown},
        }
        for old_group, group in zip(old_groups, new["groups"], strict=True)
    ]
    optimizer = new["optimizer"]
    for change in config_changes:
        if change.key == "optimizer._target_":
            optimizer = str(change.old)
    for kind in ("betas", "momentum"):  # options that tell the optimizers of torch apart
        if any(
            (kind in old) != (kind in group["options"])
            for old, group in zip(old_groups, new["groups"], strict=True)
        ):
            optimizer = f"another class ({kind})" if optimizer == new["optimizer"] else optimizer
    schedule = {
        c.key.removeprefix("schedule."): c.old for c in config_changes if c.key.startswith("schedule.")
    }
    return {
        "values": {"seed": config["seed"]} if isinstance(config.get("seed"), int) else {},
        "optimizer": optimizer,
        "groups": groups,
        "scheduler": None if state["scheduler"] is None else new["scheduler"] or "a schedule",
        "schedule": {**new["schedule"], **schedule},
        "schedule_state": new["schedule_state"],
        "callbacks": {},
    }


def compare_configs(old: ConfigLike | None, new: ConfigLike | None) -> list[SettingChange]:
    """Return the values that differ between the configs of two runs, by the key that a user types.

    Args:
        old: config of the checkpoint; None or an empty one cannot be compared.
        new: config of the run that continues.
    """
    old_values, new_values = dict(_leaves(_plain(old))), dict(_leaves(_plain(new)))
    if not old_values or not new_values:
        return []
    return [
        change
        for change in changes_between(old_values, new_values, "")
        if (section := change.key.partition(".")[0]) not in _PATHS
        and (section in _SECTIONS or (change.key in old_values and change.key in new_values))
    ]


def describe_changes(
    changes: Sequence[SettingChange], config_changes: Sequence[SettingChange] = ()
) -> list[str]:
    """Return one line for each value that changed.

    Args:
        changes: differences between the settings.
        config_changes: differences between the configs. Changes of settings that follow from them get no line of
            their own.
    """
    keys = {change.key for change in config_changes}
    sections = {key.partition(".")[0] for key in keys}
    lines = [f"resumed with {change}" for change in config_changes]
    for change in changes:
        section = change.key.partition(".")[0]
        if change.key == "optimizer.lr" and keys and change.key not in keys:
            if "parameter_groups" not in sections:  # the batch size scales it
                lines.append(f"resumed with learning rate: {str(change).partition(': ')[2]}")
        elif section == "optimizer":
            lines += [] if sections & {"optimizer", "parameter_groups"} else [f"resumed with {change}"]
        elif section in ("schedule", "callbacks"):
            lines += [] if section in sections else [f"resumed with {change}"]
        elif change.key not in keys:
            lines.append(f"resumed with {change}")
    if len(lines) > _MAX_LINES:
        lines[_MAX_LINES:] = [f"resumed with {len(lines) - _MAX_LINES} more changes of the config"]
    return lines


def _option_changes(old: Sequence[GroupSettings], new: Sequence[GroupSettings]) -> list[SettingChange]:
    """Return the options that differ, each for the first parameter group in which it does."""
    owners = {name: group for group in old for name in group["parameters"]}
    changes: dict[str, SettingChange] = {}
    for group in new:
        owner = next((owners[name] for name in group["parameters"] if name in owners), None)
        if owner is not None:
            before, after = _base_options(owner["options"]), _base_options(group["options"])
            for change in changes_between(before, after, "optimizer.", only_common=True):
                changes.setdefault(change.key, change)
    return list(changes.values())


def _base_options(options: StateDict) -> StateDict:
    """Return the options with the learning rate before the schedule as ``lr``."""
    base = {key: value for key, value in options.items() if key != "initial_lr"}
    return {**base, "lr": options["initial_lr"]} if "initial_lr" in options else base


def _group_change(old: Sequence[GroupSettings], new: Sequence[GroupSettings]) -> SettingChange:
    counts = [sum(len(group["parameters"]) for group in groups) for groups in (old, new)]
    if counts[0] != counts[1]:
        return SettingChange("trained parameters", *counts)
    return SettingChange("parameter groups", len(old), f"{len(new)} with other parameters")


def _schedule_changes(old: RunSettings, new: RunSettings) -> tuple[list[SettingChange], bool]:
    """Return the settings of the schedule that differ, and True if any value of the schedule differs."""
    if old["scheduler"] != new["scheduler"]:
        return [SettingChange("schedule", old["scheduler"], new["scheduler"])], True
    settings = changes_between(old["schedule"], new["schedule"], "schedule.")
    before, after = old["schedule_state"], new["schedule_state"]
    differ = bool(settings) or not is_same(before, after)
    # The rates differ with those of the optimizer, whose change has a line of its own.
    arguments = changes_between(_without_rates(before), _without_rates(after), "schedule.", only_common=True)
    shown = [change for change in arguments if not change.key.startswith("schedule._")]
    if arguments and not shown:  # such as the parts of a SequentialLR
        shown = [SettingChange("schedule", old["scheduler"], f"{new['scheduler']} with other arguments")]
    return [*settings, *shown], differ


def _without_rates(value: Any) -> Any:
    """Return the state of a schedule without the learning rates of its optimizer, also in its parts."""
    if isinstance(value, Counter):  # milestones
        return value
    if isinstance(value, Mapping):
        return {k: _without_rates(v) for k, v in value.items() if k not in ("base_lrs", "_last_lr")}
    return [_without_rates(item) for item in value] if isinstance(value, list) else value


def _plain(config: ConfigLike | None) -> object:
    # Through YAML, since that is how the other config was stored.
    return OmegaConf.to_container(OmegaConf.create(to_yaml(config)), resolve=False)


def _leaves(value: object, key: str = "") -> Iterator[tuple[str, object]]:
    """Yield the values of nested mappings by dotted key; a list is one value."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _leaves(item, f"{key}.{name}" if key else str(name))
    elif key:
        yield key, value
