"""``hydet.compose``: compose a config in Python as a command does."""

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
from .path_values import quote_paths
from .presets import compose_with_preset, preset_override, with_preset
from .resolvers import register_resolvers

__all__ = ["complete_command_line", "compose", "compose_choices"]

CONFIG_MODULE = "hydet.conf"
# Hydra raises a plain ValueError for an option that is null.
COMPOSITION_ERRORS = (HydraException, OmegaConfBaseException, ValueError)


def compose(
    *overrides: str, config_name: str = "train", config_dir: str | Path | Sequence[str | Path] | None = None
) -> DictConfig:
    """Compose a config as a command does, and leave no Hydra state behind.

    Args:
        overrides: as typed after ``python -m src.train``: ``"model=retinanet"``, ``"optimizer.lr=0.01"``. A key can
            also be an argument of a part that its YAML leaves at the default.
        config_name: primary config, such as ``"train"``; a file at the top of the tree.
        config_dir: folder, or several folders, with further configs, like ``--config-dir``.

    Returns:
        The composed config, with unresolved interpolations.

    Raises:
        ConfigError: names the unknown key or option, and the nearest known one.

    Example:
        >>> cfg = hydet.compose("model=mask_rcnn_fpn", "backbone=r101")
        >>> model = hydet.instantiate(cfg.model)
    """
    register_resolvers()
    folders = [config_dir] if isinstance(config_dir, str | Path) else list(config_dir or ())
    for folder in folders:
        if not Path(folder).is_dir():
            raise ConfigError(f"config_dir {str(folder)!r} is not a folder")
    typed = with_search_path(quote_paths(overrides), folders)
    with _own_hydra():
        try:
            return compose_with_preset(config_name, typed)
        except COMPOSITION_ERRORS as error:
            base = _compose_choices(config_name, typed)
            admitted = [*preset_override(base, typed), *_with_plus(typed, missing_arguments(typed, base))]
            if admitted == typed:
                raise ConfigError(explain(error, base, overrides)) from error
        try:
            return hydra_compose(config_name=config_name, overrides=admitted)
        except COMPOSITION_ERRORS as error:
            raise ConfigError(explain(error, base, overrides)) from error


def complete_command_line(
    arguments: Sequence[str], *, config_name: str, config: DictConfig | None = None
) -> list[str]:
    """Return a command line with the ``+`` signs and the preset that Hydra needs.

    An override of an argument that the YAML of a part leaves out receives a ``+``, as in ``compose``. In a sweep over
    options (``-m model=retinanet,fcos model.num_classes=3``) Hydra first looks up every key in the default option, so
    keys that only the first run has receive ``++``.

    Args:
        arguments: command line, flags included.
        config_name: primary config of the command.
        config: result of ``compose_choices`` for the same command line, if the caller has it.
    """
    overrides = split_command_line(arguments)
    register_resolvers()
    with _own_hydra():
        if config is None:
            config = _compose_choices(config_name, choices(overrides))
        arguments = with_preset(arguments, overrides, config)
        if len(choices(overrides)) == len(overrides):
            return list(arguments)
        missing = missing_arguments(overrides, config)
        not_swept = without_sweeps(overrides)
        if not_swept == choices(overrides):
            return _with_plus(arguments, missing)
        known_from_start = known_keys(overrides, _compose_choices(config_name, not_swept))
    known_later = [override for override in known_keys(overrides, config) if override not in known_from_start]
    return _with_plus(arguments, [*missing, *known_later], plus="++")


def compose_choices(arguments: Sequence[str], *, config_name: str) -> DictConfig | None:
    """Compose the options that a command line chooses, without the values that it sets; the first run of a sweep.

    Messages about unknown keys compare with this config. If the choices cannot be composed, it is the primary config
    with its defaults, and None if that fails too.
    """
    register_resolvers()
    with _own_hydra():
        return _compose_choices(config_name, split_command_line(arguments))


@contextlib.contextmanager
def _own_hydra() -> Iterator[None]:
    """Initialize Hydra on hydet's tree, also inside a Hydra application, and restore its state afterwards."""
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
    for attempt in (chosen, [choice for choice in chosen if choice.startswith("hydra.")]):
        try:
            config = compose_with_preset(config_name, attempt)
        except COMPOSITION_ERRORS:
            continue
        OmegaConf.set_struct(config, False)
        return config
    return None


def _with_plus(overrides: Sequence[str], chosen: Sequence[str], *, plus: str = "+") -> list[str]:
    return [plus + override if override in chosen else override for override in overrides]
