"""What somebody typed: folders of configs, options, and values, of which Hydra takes some only with a ``+``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig

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
    """The overrides of a command line, with the search path that its ``--config-dir`` stands for; flags are dropped."""
    try:
        parsed, rest = get_args_parser().parse_known_args(list(arguments))
    except SystemExit:  # Hydra will say the same
        return []
    folders = [] if parsed.config_dir is None else [parsed.config_dir]
    return with_search_path([*parsed.overrides, *(a for a in rest if not a.startswith("-"))], folders)


def with_search_path(overrides: Sequence[str], folders: Sequence[str | Path]) -> list[str]:
    """The overrides, with ``folders`` before what ``hydra.searchpath`` has in them: Hydra heeds only the first."""
    if not folders:
        return list(overrides)
    places = [f"file://{Path(folder).resolve()}" for folder in folders]
    kept = []
    for override in overrides:
        if override.startswith(f"{SEARCH_PATH}="):
            for value in (o.value() for o in _parsed([override])):
                places += [str(place) for place in (value if isinstance(value, list) else [value])]
        else:
            kept.append(override)
    quoted = ",".join("'" + place.replace("'", "\\'") + "'" for place in places)
    return [f"{SEARCH_PATH}=[{quoted}]", *kept]


def choices(overrides: Sequence[str]) -> list[str]:
    """Those that choose an option of a group or set a key at the root, and the search path.

    Of an option to sweep over, the first.
    """
    found = []
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
            found.append(f"{override.get_key_element()}={next(iter(override.sweep_string_iterator()))}")
        else:
            found.append(str(override.input_line))
    return found


def missing_arguments(overrides: Sequence[str], config: DictConfig | None) -> list[str]:
    """Those that name an argument which a part takes and its YAML leaves at the default.

    A component's YAML says only what differs from the defaults, so naming such an argument is no mistake; Hydra
    however calls the key unknown unless the override starts with ``+``.

    Args:
        overrides: as typed.
        config: composed from their ``choices``; without it none is known.
    """
    return _values(overrides, config, _is_missing_argument)


def known_keys(overrides: Sequence[str], config: DictConfig | None) -> list[str]:
    """Those that set a value which ``config`` has, below its root."""
    return _values(overrides, config, _is_known)


def without_sweeps(overrides: Sequence[str]) -> list[str]:
    """Their ``choices``, but for those of which several are to be tried."""
    swept = {str(o.input_line) for o in _parsed(overrides) if o.is_sweep_override()}
    return choices([override for override in overrides if override not in swept])


def _values(
    overrides: Sequence[str], config: DictConfig | None, wanted: Callable[[str, DictConfig], bool]
) -> list[str]:
    if config is None:
        return []
    return [
        str(o.input_line)
        for o in _parsed(overrides)
        if "." in o.key_or_group
        and not o.key_or_group.startswith("hydra.")
        and not (o.is_add() or o.is_force_add() or o.is_delete())
        and wanted(o.key_or_group, config)
    ]


def _parsed(overrides: Sequence[str]) -> list[Override]:
    try:
        return OverridesParser.create().parse_overrides(list(overrides))
    except HydraException:  # whoever composes reports it
        return []


def _is_known(key: str, config: DictConfig) -> bool:
    node: Any = config
    for part in key.split("."):
        node = _below(node, part)
        if node is None:
            return False
    return True


def _is_missing_argument(key: str, config: DictConfig) -> bool:
    node: Any = config
    for part in key.split("."):
        below = _below(node, part)
        if below is None:
            return isinstance(node, DictConfig) and part in arguments_of_node(node)
        node = below
    return False


def _below(node: Any, part: str) -> Any:
    """The entry of a section, not resolved; ``None`` if there is none, or ``node`` is no section."""
    if not isinstance(node, DictConfig) or node._is_none() or node._is_missing() or node._is_interpolation():
        return None
    return node._get_node(part, validate_access=False)
