"""``hydet.compose``: the command line's composition, from Python."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.singleton import Singleton
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from .errors import ConfigError, explain
from .resolvers import register_resolvers

__all__ = ["compose"]

CONFIG_MODULE = "hydet.conf"


def compose(
    *overrides: str, config_name: str = "train", config_dir: str | Path | Sequence[str | Path] | None = None
) -> DictConfig:
    """Compose a config as the command line would, leaving no Hydra state behind.

    Args:
        overrides: as typed after ``python -m src.train``: ``"model=retinanet"``, ``"optimizer.lr=0.01"``.
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
    search = (
        [f"hydra.searchpath=[{','.join(f'file://{Path(f).resolve()}' for f in folders)}]"] if folders else []
    )
    before = copy.copy(Singleton._instances.get(GlobalHydra))
    Singleton._instances.pop(GlobalHydra, None)
    try:
        with initialize_config_module(config_module=CONFIG_MODULE, version_base="1.3"):
            try:
                return hydra_compose(config_name=config_name, overrides=[*search, *overrides])
            except (HydraException, OmegaConfBaseException) as error:
                raise ConfigError(explain(error, _without_values(config_name, search, overrides))) from error
    finally:
        Singleton._instances.pop(GlobalHydra, None)
        if before is not None:
            Singleton._instances[GlobalHydra] = before


def _without_values(config_name: str, search: Sequence[str], overrides: Sequence[str]) -> DictConfig | None:
    """The config with group choices alone, in which a misspelt key can be looked up."""
    choices = [o for o in overrides if "." not in o.split("=")[0] and not o.startswith(("+", "~"))]
    for kept in (choices, []):
        try:
            found = hydra_compose(config_name=config_name, overrides=[*search, *kept])
        except (HydraException, OmegaConfBaseException):
            continue
        with open_dict(found):
            OmegaConf.set_struct(found, False)
        return found
    return None
