"""Construction of mmdet modules from configs, without changes to mmengine's global state."""

from __future__ import annotations

import difflib
import importlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import Tensor, nn

from .mmcv_ext import provide_compiled_operators

__all__ = ["MMDetConfig", "build_from_config", "import_mmdet", "take_unsaved_buffers"]

# A part as in mmdet's config files: a mapping with ``type``.
MMDetConfig: TypeAlias = Mapping[str, object]

SCOPE = "mmdet"


def import_mmdet(owner: str) -> None:
    """Import mmdet with all its models, with mmcv's compiled operators or hydet's stand-ins for them.

    Args:
        owner: name of the class that needs mmdet, for the message.

    Raises:
        ImportError: if mmdet, mmengine or mmcv is missing, or their versions are incompatible.
    """
    try:
        importlib.import_module("mmcv")
        provide_compiled_operators()
        importlib.import_module("mmdet.models")
    except (ImportError, AssertionError) as error:  # mmdet asserts the versions of mmcv and mmengine
        raise ImportError(
            f"{owner} needs mmdet 3.3.0 with mmengine and mmcv-lite 2.1.0: pip install 'hydet[mmdet]' ({error})"
        ) from error


def build_from_config(config: MMDetConfig | Sequence[MMDetConfig], *, owner: str) -> nn.Module:
    """Build a module from an mmdet config and initialize its weights as the config says.

    Under ``torch.device("meta")``, the module is built on the CPU without initialization, since mmdet keeps anchors as
    plain tensors, which could never leave the meta device; :func:`take_unsaved_buffers` moves the rest there. mmengine's
    logger is silenced, since it logs a line per parameter.

    Args:
        config: as in mmdet's config files: a mapping with ``type``, or a list of such mappings for modules to run one
            after the other. It does not change.
        owner: name of the class that builds the module, for messages.

    Returns:
        The built module.

    Raises:
        ImportError: if mmdet is not available; see ``import_mmdet``.
        TypeError: if ``config`` is neither a mapping nor a list, or has no ``type``.
        ValueError: if mmdet has no such ``type``.
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
    is_meta = torch.get_default_device().type == "meta"
    device = torch.device("cpu") if is_meta else torch.get_default_device()
    with DefaultScope.overwrite_default_scope(SCOPE), _silence_logger(), device:
        try:
            module: nn.Module = MODELS.build(config)
        except KeyError as error:
            raise ValueError(f"{owner}: {_explain(error)}") from error
        for part in module.children() if isinstance(plain, list) else [module]:
            init_weights = getattr(part, "init_weights", None)  # a method of mmengine's BaseModule
            if callable(init_weights) and not is_meta:
                init_weights()
    return module


def take_unsaved_buffers(module: nn.Module) -> dict[str, Tensor]:
    """Return the buffers outside the state dict, such as a preprocessor's mean; move the module to the default device.

    Args:
        module: a module as built. It moves only if the default device is the meta device.

    Returns:
        Copies by name, without buffers that are on the meta device already.
    """
    saved = set(module.state_dict())
    values = {
        name: buffer.clone()
        for name, buffer in module.named_buffers()
        if name not in saved and not buffer.is_meta
    }
    if torch.get_default_device().type == "meta":
        module.to("meta")
    return values


def _plain(config: object) -> object:
    """Copy nested mappings and sequences of any type to dicts, lists and tuples."""
    if isinstance(config, Mapping):
        return {key: _plain(value) for key, value in config.items()}
    if isinstance(config, tuple):
        return tuple(_plain(value) for value in config)
    if isinstance(config, Sequence) and not isinstance(config, str | bytes):
        return [_plain(value) for value in config]
    return config


def _check_types(config: object, owner: str) -> None:
    """Raise ``ValueError`` for a ``type`` that mmengine would import and call without being registered.

    A config may come with a checkpoint from an untrusted source, and mmengine accepts ``type: subprocess.run``.
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
    """Return True if ``scope.name`` is in a registry of models or their parts."""
    from mmengine.registry import MODELS, TASK_UTILS, WEIGHT_INITIALIZERS

    scope, _, key = name.partition(".")
    if scope.startswith("mm"):
        try:
            importlib.import_module(f"{scope}.registry")  # adds the scope's registries below mmengine's
        except ImportError:
            return False
    for root in (MODELS, TASK_UTILS, WEIGHT_INITIALIZERS):
        for registry in (root, *root.children.values()):
            if registry.scope == scope:
                registry.import_from_location()
                if key in registry.module_dict:
                    return True
    return False


def _explain(error: KeyError) -> str:
    """Shorten mmengine's message on an unknown ``type`` and add the nearest known name."""
    from mmdet.registry import MODELS

    text = str(error.args[0]) if error.args else str(error)
    name, separator, _ = text.partition(" is not in the ")
    if not separator:
        return f"KeyError: {text}"
    close = difflib.get_close_matches(name, [*MODELS.module_dict, *MODELS.parent.module_dict], n=1)
    return f"mmdet has no {name!r}" + (f"; close: {close[0]}" if close else "")


@contextmanager
def _silence_logger() -> Iterator[None]:
    """Limit mmengine's current logger to warnings and errors."""
    from mmengine.logging import MMLogger

    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(max(level, logging.WARNING))
    try:
        yield
    finally:
        logger.setLevel(level)
