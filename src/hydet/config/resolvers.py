"""The one interpolation that OmegaConf lacks and the tree needs."""

from __future__ import annotations

from collections.abc import Sized

from omegaconf import OmegaConf

__all__ = ["register_resolvers"]


def register_resolvers() -> None:
    """Make ``${hydet.length:${data.class_names}}`` work; safe to call more than once."""
    OmegaConf.register_new_resolver("hydet.length", _length, replace=True)


def _length(items: Sized | None) -> int:
    return 0 if items is None else len(items)
