"""Building mmdet's modules from its configs, without leaving traces in mmengine's globals."""

from __future__ import annotations

import difflib
import importlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from .mmcv_ext import provide_compiled_operators

__all__ = ["build_from_config", "import_mmdet"]

SCOPE = "mmdet"


def import_mmdet(owner: str) -> None:
    """Import mmdet with all its models, on mmcv's operators or hydet's stand-ins for them.

    Args:
        owner: who needs it, for the message.

    Raises:
        ImportError: if mmdet, mmengine or mmcv is missing, or they do not fit together.
    """
    try:
        importlib.import_module("mmcv")
        provide_compiled_operators()
        importlib.import_module("mmdet.models")
    except (ImportError, AssertionError) as error:  # mmdet asserts versions that it works with
        raise ImportError(
            f"{owner} needs mmdet 3.3.0 with mmengine and mmcv-lite 2.1.0: pip install 'hydet[mmdet]' ({error})"
        ) from error


def build_from_config(config: Mapping[str, Any] | Sequence[Mapping[str, Any]], *, owner: str) -> nn.Module:
    """What mmdet makes of a config, with its weights initialised as the config says.

    Nothing is initialised on the meta device. mmengine keeps silent, as it would log a line for every parameter.

    Args:
        config: as in mmdet's own config files: a mapping with ``type``, or a list of those for modules to run one
            after the other. It is not changed.
        owner: who needs it, for messages.

    Raises:
        ImportError: see :func:`import_mmdet`.
        TypeError: if ``config`` is neither, or has no ``type``.
        ValueError: if a ``type`` is unknown to mmdet.
    """
    plain = _plain(config)
    for part in plain if isinstance(plain, list) and plain else [plain]:
        if not isinstance(part, dict) or "type" not in part:
            raise TypeError(
                f"{owner} takes a module or an mmdet config with 'type', got {type(config).__name__}"
                + (f" with {sorted(part)}" if isinstance(part, dict) else "")
            )
    import_mmdet(owner)
    from mmdet.registry import MODELS
    from mmengine.config import ConfigDict
    from mmengine.registry import DefaultScope

    _check_types(plain, owner)
    config = [ConfigDict(part) for part in plain] if isinstance(plain, list) else ConfigDict(plain)
    with DefaultScope.overwrite_default_scope(SCOPE), _quiet():
        try:
            module = MODELS.build(config)
        except KeyError as error:
            raise ValueError(f"{owner}: {_explained(error)}") from error
        parts = module if isinstance(plain, list) else [module]
        for part in parts:
            if hasattr(part, "init_weights") and not any(p.is_meta for p in part.parameters()):
                part.init_weights()
    return module


def _plain(config: Any) -> Any:
    """A copy in dicts, lists and tuples, whoever's mappings and sequences they were."""
    if isinstance(config, Mapping):
        return {key: _plain(value) for key, value in config.items()}
    if isinstance(config, tuple):
        return tuple(_plain(value) for value in config)
    if isinstance(config, Sequence) and not isinstance(config, str | bytes):
        return [_plain(value) for value in config]
    return config


def _check_types(config: Any, owner: str) -> None:
    """Refuse names that mmengine would import and call although nobody registered them.

    A config may come with somebody's checkpoint, and ``type: subprocess.run`` is a valid one to mmengine.
    """
    if isinstance(config, Mapping):
        name = config.get("type")
        if isinstance(name, str) and "." in name and not _is_registered(name):
            raise ValueError(
                f"{owner}: type {name!r} is not in mmdet's registries; register the class there, or give the class "
                "itself instead of its name"
            )
        config = list(config.values())
    if isinstance(config, list | tuple):
        for part in config:
            _check_types(part, owner)


def _is_registered(name: str) -> bool:
    """Whether ``scope.name`` is found in a registry of models or their parts."""
    from mmengine.registry import MODELS, TASK_UTILS, WEIGHT_INITIALIZERS

    scope, _, key = name.partition(".")
    if scope.startswith("mm"):
        try:
            importlib.import_module(f"{scope}.registry")  # joins the tree below mmengine's registries
        except ImportError:
            return False
    for root in (MODELS, TASK_UTILS, WEIGHT_INITIALIZERS):
        for registry in (root, *root.children.values()):
            if registry.scope == scope:
                registry.import_from_location()
                if key in registry.module_dict:
                    return True
    return False


def _explained(error: KeyError) -> str:
    """mmengine's message on an unknown ``type``, shortened, with the nearest known name."""
    from mmdet.registry import MODELS

    text = str(error.args[0]) if error.args else str(error)
    name, found, _ = text.partition(" is not in the ")
    if not found:
        return f"KeyError: {text}"
    close = difflib.get_close_matches(name, [*MODELS.module_dict, *MODELS.parent.module_dict], n=1)
    return f"mmdet has no {name!r}" + (f"; close: {close[0]}" if close else "")


@contextmanager
def _quiet() -> Iterator[None]:
    """Only warnings and errors from mmengine's current logger."""
    from mmengine.logging import MMLogger

    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(max(level, logging.WARNING))
    try:
        yield
    finally:
        logger.setLevel(level)
