"""Update configs that an older version of hydet stored with a checkpoint.

A stored config is fully resolved, so only three things can be out of date: names of targets, keys at the root or in a
section that commands read, and arguments of a target. Each table maps old to new and is applied in one pass, before the
targets are checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["RENAMED_ARGUMENTS", "RENAMED_KEYS", "RENAMED_TARGETS", "migrate_config", "migrate_target"]

# Old target -> new target.
RENAMED_TARGETS: Mapping[str, str] = {
    # 0.2.0
    "hydet.engine.callbacks.ModelPictures": "hydet.engine.callbacks.TrainingImages",
    "hydet.engine.callbacks.PredictionPictures": "hydet.engine.callbacks.PredictionImages",
}

# Old key -> new key, dotted from the root of the config.
RENAMED_KEYS: Mapping[str, str] = {}

# New name of a target -> {old argument: new argument, or None if the argument has gone}.
RENAMED_ARGUMENTS: Mapping[str, Mapping[str, str | None]] = {
    # 0.2.0
    "hydet.engine.callbacks.PredictionImages": {"pictures": "num_images"},
}


def migrate_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored config with today's names; ``config`` is not changed."""
    migrated: dict[str, Any] = _migrate_targets(config)
    for old, new in RENAMED_KEYS.items():
        _move_key(migrated, old.split("."), new.split("."))
    return migrated


def migrate_target(target: object) -> object:
    """Return today's name of a target."""
    return RENAMED_TARGETS.get(target, target) if isinstance(target, str) else target


def _migrate_targets(node: Any) -> Any:
    if isinstance(node, list):
        return [_migrate_targets(value) for value in node]
    if not isinstance(node, Mapping):
        return node
    copy = {key: _migrate_targets(value) for key, value in node.items()}
    if "_target_" not in copy:
        return copy
    copy["_target_"] = migrate_target(copy["_target_"])
    target = copy["_target_"]
    renamed = RENAMED_ARGUMENTS.get(target, {}) if isinstance(target, str) else {}
    pairs = ((renamed.get(key, key), value) for key, value in copy.items())
    return {key: value for key, value in pairs if key is not None}


def _move_key(config: dict[str, Any], old: list[str], new: list[str]) -> None:
    """Move a value to another key, unless a value is there already."""
    *sections, name = old
    source: Any = config
    for section in sections:
        source = source.get(section) if isinstance(source, dict) else None
    if not isinstance(source, dict) or name not in source:
        return
    value = source.pop(name)
    *sections, name = new
    target: Any = config
    for section in sections:
        target = target.setdefault(section, {}) if isinstance(target, dict) else None
    if isinstance(target, dict):
        target.setdefault(name, value)
