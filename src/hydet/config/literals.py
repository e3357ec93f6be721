"""Configs whose strings are literal text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

__all__ = ["literal_config"]


def literal_config(data: Mapping[Any, Any]) -> DictConfig:
    """Return a config in which ``${...}`` in a string of ``data`` is text and not an interpolation.

    Use it for configs that were resolved before they were stored, and for class names such as ``"${price}"``.
    """
    config: DictConfig = OmegaConf.create(_escaped(data))
    return config


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        # OmegaConf reads a backslash as an escape only in front of "${", so the backslashes there are doubled.
        return re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + "\\${", value)
    if isinstance(value, Mapping):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_escaped(item) for item in value]
    return value
