"""The config that came with a checkpoint: read as data, migrated, changed by the user, and checked once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydet.config import ConfigError, check_targets, find_targets
from hydet.engine.config_file import read_config_file

from .config_migration import migrate_config
from .config_values import STORED_VALUES, check_values
from .trusted_targets import disarm, trusted

__all__ = ["BUILT_SECTIONS", "checked_config", "read_stored_config"]

# Sections of a stored config whose targets are built; the other sections are read as values or not at all.
BUILT_SECTIONS = ("model", "augment", "data", "evaluators")
# Sections that are read as values. A target in them could be built as the argument of something else.
_VALUE_SECTIONS = (
    "evaluation",
    "proposals",
    "num_workers",
    "num_classes",
    "num_keypoints",
    "num_stuff_classes",
)


def read_stored_config(
    path: str | Path, *, allow: Sequence[str] = (), changes: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Read a checkpoint's ``config.yaml``; see ``checked_config``.

    Raises:
        ConfigError: names the file and the fault.
    """
    try:
        config = read_config_file(path)
    except ValueError as error:  # names the file
        raise ConfigError(str(error)) from error
    return checked_config(config, name=str(path), allow=allow, changes=changes)


def checked_config(
    config: Mapping[str, Any],
    *,
    name: str,
    allow: Sequence[str] = (),
    changes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a stored config as plain containers whose targets are safe to build.

    Strings are never interpreted: the commands store resolved configs, so ``${...}`` is text. The changes are applied
    before the check, and the returned containers are what is built, so nothing can differ after the check.

    Args:
        config: content of ``config.yaml``.
        name: name of the file, for messages.
        allow: see ``hydet.runs.trusted_targets.trusted``.
        changes: sections to merge into the config; lists and values are replaced.

    Raises:
        ConfigError: names the file and the fault.
    """
    try:
        migrated = migrate_config(config)
        if changes:
            migrated = _merged(migrated, migrate_config(changes))
        if not isinstance(migrated.get("model"), Mapping):
            raise ConfigError("it has no section 'model'")
        check_values(migrated, STORED_VALUES)
        for section in _VALUE_SECTIONS:
            for key, node in find_targets(migrated.get(section), section):
                raise ConfigError(f"{key}: a value is expected here, got _target_ {node['_target_']}")
        for section in BUILT_SECTIONS:
            if migrated.get(section) is not None:
                disarm(migrated[section], section)
                check_targets(migrated[section], trusted(section, allow), root=section)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error
    return migrated


def _merged(config: Any, changes: Any) -> Any:
    if not isinstance(config, Mapping) or not isinstance(changes, Mapping):
        return changes
    return {**config, **{key: _merged(config.get(key), value) for key, value in changes.items()}}
