"""The interpolation ``${hydet.length:...}`` that the config tree uses and OmegaConf lacks."""

from __future__ import annotations

from collections.abc import Sized

from omegaconf import OmegaConf

__all__ = ["register_resolvers"]


def register_resolvers() -> None:
    """Register ``${hydet.length:${data.class_names}}``; repeated calls have no effect."""
    OmegaConf.register_new_resolver("hydet.length", _length, replace=True)


def _length(items: Sized | None) -> int:
    return 0 if items is None else len(items)
