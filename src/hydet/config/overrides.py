"""Sort the overrides of a command line into search path, options of groups, values, and arguments that need a ``+``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, Node

from .arguments import arguments_of_node

__all__ = [
    "choices",
    "known_keys",
    "missing_arguments",
    "split_command_line",
    "with_search_path",
    "without_sweeps",
]

SEARCH_PATH = "hydra.searchpath"


def split_command_line(arguments: Sequence[str]) -> list[str]:
    """Return the overrides of a command line, ``--config-dir`` as a search path included; flags are dropped."""
    try:
        parsed, rest = get_args_parser().parse_known_args(list(arguments))
    except SystemExit:  # Hydra will report the same error
        return []
    folders = [] if parsed.config_dir is None else [parsed.config_dir]
    return with_search_path([*parsed.overrides, *(a for a in rest if not a.startswith("-"))], folders)


def with_search_path(overrides: Sequence[str], folders: Sequence[str | Path]) -> list[str]:
    """Return the overrides with ``folders`` first in ``hydra.searchpath``; Hydra uses only the first such override."""
    if not folders:
        return list(overrides)
    search_path = [f"file://{Path(folder).resolve()}" for folder in folders]
    others = []
    for override in overrides:
        if override.startswith(f"{SEARCH_PATH}="):
            for value in (o.value() for o in _parsed([override])):
                search_path += [str(entry) for entry in (value if isinstance(value, list) else [value])]
        else:
            others.append(override)
    quoted = ",".join("'" + entry.replace("'", "\\'") + "'" for entry in search_path)
    return [f"{SEARCH_PATH}=[{quoted}]", *others]


def choices(overrides: Sequence[str]) -> list[str]:
    """Return the overrides that choose an option of a group or set a key at the root, and the search path.

    A sweep over options is replaced by its first option.
    """
    chosen = []
    for override in _parsed(overrides):
        key = override.key_or_group
        if (
            override.is_add()
            or override.is_force_add()
            or override.is_delete()
            or ("." in key and key != SEARCH_PATH)
        ):
            continue
        if override.is_sweep_override():
            chosen.append(f"{override.get_key_element()}={next(iter(override.sweep_string_iterator()))}")
        else:
            chosen.append(str(override.input_line))
    return chosen


def missing_arguments(overrides: Sequence[str], config: DictConfig | None) -> list[str]:
    """Return the overrides that name an argument which a part takes and its YAML leaves at the default.

    The YAML of a part lists only the values that differ from the defaults, so such an override is valid, but Hydra
    calls the key unknown unless the override starts with ``+``.

    Args:
        overrides: as typed.
        config: config composed from their ``choices``; None gives an empty list.
    """
    return _values(overrides, config, _is_missing_argument)


def known_keys(overrides: Sequence[str], config: DictConfig | None) -> list[str]:
    """Return the overrides that set a value which ``config`` has below its root."""
    return _values(overrides, config, _is_known)


def without_sweeps(overrides: Sequence[str]) -> list[str]:
    """Return the ``choices`` of the overrides, without those that are swept over."""
    swept = {str(o.input_line) for o in _parsed(overrides) if o.is_sweep_override()}
    return choices([override for override in overrides if override not in swept])


def _values(
    overrides: Sequence[str], config: DictConfig | None, selects: Callable[[str, DictConfig], bool]
) -> list[str]:
    if config is None:
        return []
    return [
        str(o.input_line)
        for o in _parsed(overrides)
        if "." in o.key_or_group
        and not o.key_or_group.startswith("hydra.")
        and not (o.is_add() or o.is_force_add() or o.is_delete())
        and selects(o.key_or_group, config)
    ]


def _parsed(overrides: Sequence[str]) -> list[Override]:
    try:
        return OverridesParser.create().parse_overrides(list(overrides))
    except HydraException:  # the composition reports it
        return []


def _is_known(key: str, config: DictConfig) -> bool:
    node: Node | None = config
    for part in key.split("."):
        node = _child(node, part)
        if node is None:
            return False
    return True


def _is_missing_argument(key: str, config: DictConfig) -> bool:
    node: Node | None = config
    for part in key.split("."):
        child = _child(node, part)
        if child is None:
            return isinstance(node, DictConfig) and part in arguments_of_node(node)
        node = child
    return False


def _child(node: Node | None, part: str) -> Node | None:
    """Return the unresolved entry of a section, or None if it has none or ``node`` is not a section."""
    if not isinstance(node, DictConfig) or node._is_none() or node._is_missing() or node._is_interpolation():
        return None
    child = node._get_node(part, validate_access=False)
    return child if isinstance(child, Node) else None
