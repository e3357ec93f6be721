"""``hydet.instantiate``: build what a config names, and nothing that OmegaConf owns reaches a component."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import hydra.utils
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .arguments import arguments_of
from .errors import ConfigError, explain, nearest

__all__ = ["check_targets", "instantiate"]

SPECIAL_KEYS = {"_target_", "_partial_", "_args_", "_convert_", "_recursive_"}


def instantiate(config: Any, *, allowed: Sequence[str] | None = None, **kwargs: Any) -> Any:
    """Build the object tree that ``config`` describes.

    Every mapping with ``_target_`` becomes a call of that name with the mapping's other keys as arguments,
    innermost first; ``_partial_: true`` leaves the call to the receiver. Arguments arrive as plain lists, dicts and
    numbers.

    Args:
        config: a node of a composed config, or a plain mapping or list of the same form.
        allowed: see ``check_targets``. Meant for configs that came with somebody's checkpoint. By default everything
            importable is allowed.
        **kwargs: further arguments of the outermost call, over those in ``config``.

    Raises:
        ConfigError: names the key of the config, the target and what was wrong.
    """
    plain, root = _resolved(config)
    calls = dict(_calls(plain, root))
    if allowed is not None:
        for path, node in calls.items():
            _check_allowed(path, node, allowed)
    for path, node in calls.items():
        _check_call(path, node, extra=kwargs if path == root else {})
    try:
        return hydra.utils.instantiate(plain, _convert_="all", **kwargs)
    except HydraException as error:
        cause = _cause(error)
        if isinstance(cause, HydraException | OmegaConfBaseException):
            raise ConfigError(explain(cause)) from error
        where = _full_key(str(error))
        path = ".".join(p for p in (root, where) if p)
        unknown = re.search(r"got an unexpected keyword argument '(\w+)'", str(cause))
        if unknown and unknown[1] in calls.get(path, ()):
            raise ConfigError(_no_argument(path, calls[path], unknown[1])) from error
        kind = "" if isinstance(cause, ValueError | TypeError) else f"{type(cause).__name__}: "
        raise ConfigError(f"{path or 'config'}: {kind}{cause}") from error


def check_targets(config: Any, allowed: Sequence[str]) -> None:
    """Refuse a config that would call anything but what was allowed, before any of it is called.

    Args:
        config: a node of a config, or a plain mapping or list.
        allowed: prefixes of importable names. A target must stand below one of them by its name, and be defined below
            one of them too: ``hydet.config.overrides.Path`` is pathlib's, although hydet imports it.

    Raises:
        ConfigError: names the key, the target, and what would allow it.
    """
    for path, node in _calls(*_resolved(config)):
        _check_allowed(path, node, allowed)


def _resolved(config: Any) -> tuple[Any, str]:
    """A config as plain containers, and the key under which it stands in the whole."""
    if not isinstance(config, DictConfig | ListConfig):
        if not isinstance(config, Mapping | Sequence) or isinstance(config, str):
            raise ConfigError(f"instantiate needs a mapping or a list, got {type(config).__name__}")
        config = OmegaConf.create(dict(config) if isinstance(config, Mapping) else list(config))
    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from error
    return plain, str(config._get_full_key(None) or "")


def _calls(node: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield path, node
        for key, value in node.items():
            yield from _calls(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list | tuple):
        for i, value in enumerate(node):
            yield from _calls(value, f"{path}[{i}]")


def _check_allowed(path: str, node: Mapping[str, Any], allowed: Sequence[str]) -> None:
    target = node["_target_"]
    place = target if isinstance(target, str) else type(target).__module__
    if _is_below(place, allowed):
        place = str(getattr(_found(path, target), "__module__", None))
        if _is_below(place, allowed):
            return
    raise ConfigError(
        f"{path or 'config'}: _target_ {target} is outside of what may be built here ({', '.join(allowed)}); "
        f"if you trust it, allow=[{place.split('.')[0]}]"
    )


def _is_below(name: str, prefixes: Sequence[str]) -> bool:
    return any(name == p or name.startswith(p.rstrip(".") + ".") for p in prefixes)


def _found(path: str, target: str) -> Any:
    try:
        return hydra.utils.get_object(target)
    except Exception as error:
        raise ConfigError(
            f"{path or 'config'}: _target_ {target} cannot be imported: {_hint(target, error)}"
        ) from error


def _check_call(path: str, node: Mapping[str, Any], extra: Mapping[str, Any]) -> None:
    target = node["_target_"]
    if not isinstance(target, str):
        return
    function = _found(path, target)
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for key in [*node, *extra]:
        if key not in SPECIAL_KEYS and key not in parameters:
            raise ConfigError(_no_argument(path, node, key))


def _no_argument(path: str, node: Mapping[str, Any], key: str) -> str:
    target = node["_target_"]
    known = arguments_of(hydra.utils.get_object(target)) or ()
    return f"{path or 'config'}: {target.rpartition('.')[2]} has no argument {key!r}{nearest(key, known)}"


def _hint(target: str, error: Exception) -> str:
    module, _, name = target.rpartition(".")
    try:
        return f"{module} has no {name!r}{nearest(name, [n for n in dir(hydra.utils.get_object(module)) if n[0] != '_'])}"
    except Exception:
        return " ".join(str(error).splitlines()[-1:]) or type(error).__name__


def _cause(error: BaseException) -> BaseException:
    """What the component raised, below what Hydra made of it."""
    while isinstance(error, HydraException | OmegaConfBaseException) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _full_key(text: str) -> str:
    keys = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("full_key:")]
    return keys[-1] if keys else ""
