"""Overrides whose value is a path, as a shell passes it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

__all__ = ["is_sweep", "quote_paths"]

# Keys that hold a path in the primary configs, and last parts of such keys below `data` and `proposals`.
_KEYS = {"checkpoint", "images", "init_from", "input", "output_dir", "resume"}
_LAST_PARTS = {"images", "json", "panoptic_json", "panoptic_root", "root", "segmentation", "sem_seg_root"}
_OVERRIDE = re.compile(r"(\+{0,2})([A-Za-z_][\w.]*)=(.+)", re.DOTALL)


def quote_paths(arguments: Sequence[str]) -> list[str]:
    """Return a command line in which Hydra's grammar reads every path as one string.

    Characters such as ``=``, ``(``, ``[`` and ``,`` have a meaning in Hydra's grammar, but are common in file names, so
    ``input=photos/(1).jpg`` or ``output_dir=runs/lr=0.1`` would fail. The values of keys that hold a path receive quotes
    where the grammar cannot read them as one string. In a sweep, a comma still separates values.

    Args:
        arguments: command line, flags included.
    """
    return [_quoted(argument, is_sweep(arguments)) for argument in arguments]


def is_sweep(arguments: Sequence[str]) -> bool:
    """Return whether a command line starts a sweep."""
    return any(argument in ("-m", "--multirun") for argument in arguments)


def _quoted(argument: str, sweep: bool) -> str:
    match = _OVERRIDE.fullmatch(argument)
    if match is None or not _holds_path(match[2]):
        return argument
    sign, key, value = match.groups()
    parsed = _parse(argument)
    if parsed is not None and (sweep if parsed.is_sweep_override() else _is_plain(parsed)):
        return argument
    if (
        parsed is not None and key == "resume" and not parsed.is_sweep_override()
    ):  # numbers are mistakes there
        return argument
    if parsed is None and value[0] in "'\"":  # the user's quotes, with a fault that Hydra reports
        return argument
    # A backslash before a quote would escape it.
    text = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), value)
    return f"{sign}{key}='{text}'"


def _holds_path(key: str) -> bool:
    first, _, rest = key.partition(".")
    last = rest.rpartition(".")[2]
    return key in _KEYS or first == "proposals" or (first == "data" and last in _LAST_PARTS)


def _is_plain(override: Override) -> bool:
    """Return whether the value is a string, a list of them, null or a flag, and not, for example, a number."""
    return override.value() is None or isinstance(override.value(), str | bool | list)


def _parse(argument: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(argument)
    except HydraException:
        return None
