"""One line for what is wrong with a config, with the nearest thing that would have worked."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, ListConfig
from omegaconf.errors import OmegaConfBaseException

from .arguments import arguments_of_node

__all__ = ["ConfigError", "explain", "nearest"]


class ConfigError(ValueError):
    """A config that cannot be composed or built; the message names the key."""


def nearest(word: str, known: Iterable[str]) -> str:
    """``"; nearest: 'lr'"``, the known words where none is near, or nothing where there are none."""
    known = sorted({str(k) for k in known})
    found = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if found:
        return f"; nearest: {found[0]!r}"
    return f"; known: {', '.join(known)}" if known else ""


def explain(error: Exception, config: DictConfig | None = None) -> str:
    """A Hydra or OmegaConf error in one line.

    Args:
        error: what composition or interpolation raised.
        config: the config as it is without the failing override, to name the nearest key.
    """
    text = _chain(error)
    if isinstance(error, OverrideParseException):
        return f"cannot read the override {error.override!r}: {str(error).splitlines()[0]}"
    if isinstance(error, MissingConfigException):
        return _explain_missing_option(str(error))
    unknown = re.search(r"Could not override '([^']+)'", text)
    if unknown and "Did you mean to override" in text:
        return _explain_name_of_group(unknown.group(1), text)
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


def _chain(error: BaseException) -> str:
    cause = error.__cause__
    return str(error) + (f"\n{_chain(cause)}" if cause is not None else "")


def _explain_missing_option(text: str) -> str:
    wanted = re.search(r"Could not find '([^']+)'", text) or re.search(r"'([^']+)'", text)
    options = re.findall(r"^\s+(\S+)$", text, flags=re.MULTILINE)
    if wanted is None:
        return " ".join(text.split())
    group, _, option = wanted.group(1).rpartition("/")
    if not group:
        return f"no config is called {option!r}"
    return f"{group}={option}: there is no such option{nearest(option, options)}; available: {', '.join(sorted(options))}"


def _explain_name_of_group(group: str, text: str) -> str:
    names = re.search(r"Did you mean to override (?:one of )?(.+)\?", text)
    return f"there is no group {group!r} here; it is called {names.group(1) if names else '?'}"


def _explain_absent_group(group: str, text: str) -> str:
    """An option was chosen for a group that other configs have and these have not."""
    config = re.search(r"In '([^']+)'", text)
    where = f"{config.group(1)} chooses" if config else "there is"
    place = group.replace("/", ".")
    return (
        f"{where} an option of the group {group!r}, which nothing else in this config has; a model that does "
        f"without it says so in its defaults list: '/{group}@_global_.{place}: null'"
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
