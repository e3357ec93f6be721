"""Explains errors in a config in one line, with the nearest name that exists."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, ListConfig
from omegaconf.errors import OmegaConfBaseException

from .arguments import arguments_of_node

__all__ = ["ConfigError", "explain", "nearest"]


class ConfigError(ValueError):
    """A config cannot be composed or built; the message names the key."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``"; nearest: 'lr'"``, all known words if none is near, or an empty string if there are none."""
    known = sorted({str(k) for k in known})
    matches = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if matches:
        return f"; nearest: {matches[0]!r}"
    return f"; known: {', '.join(known)}" if known else ""


def explain(error: Exception, config: DictConfig | None = None, overrides: Sequence[str] = ()) -> str:
    """Explain an error of Hydra or OmegaConf in one line.

    Args:
        error: the error of a composition or an interpolation.
        config: the config without the failing override, to find the nearest key.
        overrides: the command line, to find an override that Hydra does not name.
    """
    text = _text_with_causes(error)
    if isinstance(error, OverrideParseException):
        return f"cannot read the override {error.override!r}: {str(error).splitlines()[0]}"
    if isinstance(error, MissingConfigException):
        return _explain_missing_option(str(error))
    if "Config group override must be a string or a list. Got NoneType" in text:
        empty = next(
            (o.partition("=")[0] for o in overrides if re.fullmatch(r"[\w/@.]+=(null)?", o)), "GROUP"
        )
        return f"{empty}=null: a group takes the name of an option; ~{empty} leaves the group out"
    unknown = re.search(r"Could not override '([^']+)'", text)
    if unknown and "Did you mean to override" in text:
        return _explain_group_name(unknown.group(1), text)
    if (
        unknown
        and "No match in the defaults list" in text
        and config is not None
        and unknown.group(1) in config
    ):
        return _explain_absent_group(unknown.group(1), text)
    if unknown and (
        "is not in struct" in text or "No match in the defaults list" in text or config is not None
    ):
        return _explain_unknown_key(unknown.group(1), config, text)
    if isinstance(error, HydraException | OmegaConfBaseException):
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        noise = ("full_key:", "object_type=", "Set the environment", "To append to your", "See https")
        return " ".join(line for line in lines if not line.startswith(noise))
    return " ".join(str(error).split())


def _text_with_causes(error: BaseException) -> str:
    cause = error.__cause__
    return str(error) + (f"\n{_text_with_causes(cause)}" if cause is not None else "")


def _explain_missing_option(text: str) -> str:
    name = re.search(r"Could not find '([^']+)'", text) or re.search(r"'([^']+)'", text)
    options = re.findall(r"^\s+(\S+)$", text, flags=re.MULTILINE)
    if name is None:
        return " ".join(text.split())
    group, _, option = name.group(1).rpartition("/")
    if not group:
        return f"there is no config {option!r}"
    return f"{group}={option}: there is no such option{nearest(option, options)}; available: {', '.join(sorted(options))}"


def _explain_group_name(group: str, text: str) -> str:
    names = re.search(r"Did you mean to override (?:one of )?(.+)\?", text)
    return f"there is no group {group!r} here; its name is {names.group(1) if names else '?'}"


def _explain_absent_group(group: str, text: str) -> str:
    """Explain an override of a group that no defaults list of the chosen options contains."""
    config = re.search(r"In '([^']+)'", text)
    origin = f"{config.group(1)} chooses" if config else "there is"
    key = group.replace("/", ".")
    return (
        f"{origin} an option of the group {group!r}, which no defaults list of this config contains; a model without "
        f"such a part has this entry in its defaults list: '/{group}@_global_.{key}: null'"
    )


def _explain_unknown_key(key: str, config: DictConfig | None, text: str) -> str:
    if config is None:
        return f"unknown key {key!r}"
    node: Any = config
    path: list[str] = []
    for part in key.split("."):
        if not isinstance(node, DictConfig) or part not in node:
            break
        path.append(part)
        node = node._get_node(part)
    if isinstance(node, ListConfig):
        return (
            f"unknown key {key!r}: {'.'.join(path)} is a list; replace it as a whole, {'.'.join(path)}=[...]"
        )
    if not isinstance(node, DictConfig):
        what = "nothing" if node is None or node._value() is None else f"the value {node._value()!r}"
        return f"unknown key {key!r}: {'.'.join(path)} is {what}, not a section"
    wrong = key.split(".")[len(path)] if len(path) < len(key.split(".")) else key
    where = ".".join(path)
    inside = f" in {where!r}" if where else ""
    known = [*(str(k) for k in node), *arguments_of_node(node)]
    return f"unknown key {key!r}: there is no {wrong!r}{inside}{nearest(wrong, known)}"
