"""``hydet.compose``: the command line's composition, from Python."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.singleton import Singleton
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .errors import ConfigError, explain
from .overrides import (
    choices,
    known_keys,
    missing_arguments,
    split_command_line,
    with_search_path,
    without_sweeps,
)
from .resolvers import register_resolvers

__all__ = ["complete_command_line", "compose", "compose_choices"]

CONFIG_MODULE = "hydet.conf"


def compose(
    *overrides: str, config_name: str = "train", config_dir: str | Path | Sequence[str | Path] | None = None
) -> DictConfig:
    """Compose a config as the command line would, leaving no Hydra state behind.

    Args:
        overrides: as typed after ``python -m src.train``: ``"model=retinanet"``, ``"optimizer.lr=0.01"``. A key may
            also be an argument of a part that its YAML leaves at the default.
        config_name: the primary config, ``train`` or another file at the top of the tree.
        config_dir: a folder (or several) with configs of one's own, searched like ``--config-dir``.

    Returns:
        The composed config; interpolations are still live.

    Raises:
        ConfigError: names the key or option that is wrong, and the nearest that exists.

    Example:
        >>> cfg = hydet.compose("model=mask_rcnn_fpn", "backbone=r101")
        >>> model = hydet.instantiate(cfg.model)
    """
    register_resolvers()
    folders = [config_dir] if isinstance(config_dir, str | Path) else list(config_dir or ())
    for folder in folders:
        if not Path(folder).is_dir():
            raise ConfigError(f"config_dir {str(folder)!r} is not a folder")
    typed = with_search_path(overrides, folders)
    with _own_hydra():
        try:
            return _compose_with_preset(config_name, typed)
        except (HydraException, OmegaConfBaseException) as error:
            base = _compose_choices(config_name, typed)
            admitted = [*_preset_override(base, typed), *_with_plus(typed, missing_arguments(typed, base))]
            if admitted == typed:
                raise ConfigError(explain(error, base)) from error
        try:
            return hydra_compose(config_name=config_name, overrides=admitted)
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(explain(error, base)) from error


def complete_command_line(arguments: Sequence[str], *, config_name: str) -> list[str]:
    """A command line that Hydra takes as it was meant.

    An override of an argument that a part's YAML leaves out gets the ``+`` that adds it; ``compose`` does so by itself.
    In a sweep over options (``-m model=retinanet,fcos model.num_classes=3``) Hydra would look up every key in the
    default option first, so those that only the first run has get ``++``.

    Args:
        arguments: of a command that Hydra runs, flags included.
        config_name: its primary config.
    """
    overrides = split_command_line(arguments)
    register_resolvers()
    with _own_hydra():
        config = _compose_choices(config_name, choices(overrides))
        arguments = _with_preset(arguments, overrides, config)
        if len(choices(overrides)) == len(overrides):
            return list(arguments)
        missing = missing_arguments(overrides, config)
        fixed = without_sweeps(overrides)
        if fixed == choices(overrides):
            return _with_plus(arguments, missing)
        known_at_once = known_keys(overrides, _compose_choices(config_name, fixed))
    late = [override for override in known_keys(overrides, config) if override not in known_at_once]
    return _with_plus(arguments, [*missing, *late], plus="++")


def compose_choices(arguments: Sequence[str], *, config_name: str) -> DictConfig | None:
    """What a command line chooses, without the values that it sets; of a sweep, the first run.

    For messages about a key that is not in it. Where the choices cannot be composed either, the primary config with
    its defaults; ``None`` if not even those can.
    """
    register_resolvers()
    with _own_hydra():
        return _compose_choices(config_name, split_command_line(arguments))


@contextlib.contextmanager
def _own_hydra() -> Iterator[None]:
    """Hydra on hydet's tree, whatever else it is doing, and afterwards as it was."""
    before = copy.copy(Singleton._instances.get(GlobalHydra))
    Singleton._instances.pop(GlobalHydra, None)
    try:
        with initialize_config_module(config_module=CONFIG_MODULE, version_base="1.3"):
            yield
    finally:
        Singleton._instances.pop(GlobalHydra, None)
        if before is not None:
            Singleton._instances[GlobalHydra] = before


def _compose_choices(config_name: str, overrides: Sequence[str]) -> DictConfig | None:
    chosen = choices(overrides)
    for kept in (chosen, [c for c in chosen if c.startswith("hydra.")]):
        try:
            found = _compose_with_preset(config_name, kept)
        except (HydraException, OmegaConfBaseException):
            continue
        OmegaConf.set_struct(found, False)
        return found
    return None


def _compose_with_preset(config_name: str, overrides: Sequence[str]) -> DictConfig:
    """Compose with Hydra, and once more if ``preset: auto`` stands for a preset that the data name.

    Hydra fixes all choices before it merges values, so an option of one group cannot follow from a value such as
    ``data.preset``.
    """
    config = hydra_compose(config_name=config_name, overrides=list(overrides))
    if OmegaConf.select(config, "preset.name") != "auto":
        return config
    named = OmegaConf.select(config, "data.preset")
    if named is None:
        return config
    others = [override for override in overrides if override != "preset=auto"]
    return hydra_compose(config_name=config_name, overrides=[f"preset={named}", *others])


def _preset_override(config: DictConfig | None, overrides: Sequence[str]) -> list[str]:
    """Return the override that chooses the preset of ``config``, unless ``overrides`` choose one or none is active."""
    name = None if config is None else OmegaConf.select(config, "preset.name")
    if name in (None, "auto") or any(choice.startswith("preset=") for choice in choices(overrides)):
        return []
    return [f"preset={name}"]


def _with_preset(arguments: Sequence[str], overrides: Sequence[str], config: DictConfig | None) -> list[str]:
    """Insert the chosen preset before the first override of a command line; argparse wants overrides side by side."""
    arguments = [argument for argument in arguments if argument != "preset=auto"]
    overrides = [override for override in overrides if override != "preset=auto"]
    first = next((i for i, argument in enumerate(arguments) if argument in overrides), len(arguments))
    return [*arguments[:first], *_preset_override(config, overrides), *arguments[first:]]


def _with_plus(overrides: Sequence[str], chosen: Sequence[str], *, plus: str = "+") -> list[str]:
    return [plus + override if override in chosen else override for override in overrides]
