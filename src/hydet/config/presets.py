"""Resolve ``preset: auto`` to the preset that the data option names."""

from __future__ import annotations

from collections.abc import Sequence

from hydra import compose as hydra_compose
from omegaconf import DictConfig, OmegaConf

from .overrides import choices

__all__ = ["compose_with_preset", "preset_override", "with_preset"]


def compose_with_preset(config_name: str, overrides: Sequence[str]) -> DictConfig:
    """Compose with Hydra; if the preset is ``auto`` and the data option names one, compose again with that preset.

    Hydra fixes all choices before it merges values, so an option of one group cannot follow from a value such as
    ``data.preset``.
    """
    config = hydra_compose(config_name=config_name, overrides=list(overrides))
    if OmegaConf.select(config, "preset.name") != "auto":
        return config
    name = OmegaConf.select(config, "data.preset")
    if name is None:
        return config
    return hydra_compose(config_name=config_name, overrides=[f"preset={name}", *_without_auto(overrides)])


def preset_override(config: DictConfig | None, overrides: Sequence[str]) -> list[str]:
    """Return the override that chooses the preset of ``config``; an empty list if ``overrides`` choose one already."""
    name = None if config is None else OmegaConf.select(config, "preset.name")
    if name in (None, "auto") or any(choice.startswith("preset=") for choice in choices(overrides)):
        return []
    return [f"preset={name}"]


def with_preset(arguments: Sequence[str], overrides: Sequence[str], config: DictConfig | None) -> list[str]:
    """Insert the chosen preset before the first override of a command line; argparse needs adjacent overrides."""
    arguments, overrides = _without_auto(arguments), _without_auto(overrides)
    first = next((i for i, argument in enumerate(arguments) if argument in overrides), len(arguments))
    return [*arguments[:first], *preset_override(config, overrides), *arguments[first:]]


def _without_auto(overrides: Sequence[str]) -> list[str]:
    return [override for override in overrides if override != "preset=auto"]
