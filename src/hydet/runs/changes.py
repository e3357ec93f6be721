"""Changes of a stored config that are written as keywords in Python."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydet.config import ConfigError

__all__ = ["CHANGEABLE", "expand_changes"]

# Sections of a checkpoint's config in which users can replace values.
CHANGEABLE = ("model", "augment")


def expand_changes(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return changes as nested sections, given sections whose keys may be dotted.

    ``{"model": {"roi_heads.box_predictor.test_nms_thresh": 0.6}}`` and
    ``{"model.roi_heads.box_predictor.test_nms_thresh": 0.6}`` become
    ``{"model": {"roi_heads": {"box_predictor": {"test_nms_thresh": 0.6}}}}``.

    Raises:
        TypeError: if a section is not one that can be changed, or is no mapping.
        ConfigError: if two changes contradict each other.
    """
    expanded: dict[str, Any] = {}
    _merge_into(expanded, changes, "")
    for section, values in expanded.items():
        if section not in CHANGEABLE:
            raise TypeError(
                f"load() got an unexpected keyword {section!r}; changes of the config are in the sections "
                f"{' and '.join(CHANGEABLE)}"
            )
        if not isinstance(values, dict):
            raise TypeError(f"{section} takes a dict of changed values, got {values!r}")
    return expanded


def _merge_into(target: dict[str, Any], changes: Mapping[str, Any], path: str) -> None:
    for key, value in changes.items():
        *sections, name = str(key).split(".")
        node = target
        for section in sections:
            node = node.setdefault(section, {})
            if not isinstance(node, dict):
                raise ConfigError(f"{path}{key}: {section} is set to a value and to a section")
        if isinstance(value, Mapping):
            node = node.setdefault(name, {})
            if not isinstance(node, dict):
                raise ConfigError(f"{path}{key} is set to a value and to a section")
            _merge_into(node, value, f"{path}{key}.")
        elif name in node:
            raise ConfigError(f"{path}{key} is set twice")
        else:
            node[name] = value
