"""``hydet.instantiate``: build the objects that a config describes."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import hydra.utils
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .arguments import arguments_of
from .errors import ConfigError, explain, nearest

__all__ = [
    "TargetCheck",
    "build_targets",
    "check_targets",
    "find_targets",
    "instantiate",
    "is_below",
    "to_plain",
]

# Takes a ``_target_`` and returns the reason why it must not be called, or None.
TargetCheck = Callable[[object], str | None]

# Keys of a mapping with ``_target_`` that are not arguments, and the type of their values.
SPECIAL_KEYS: Mapping[str, type | tuple[type, ...]] = {
    "_target_": object,
    "_partial_": bool,
    "_args_": list,
    "_convert_": str,
    "_recursive_": bool,
}


def instantiate(config: Any, *, allowed: Sequence[str] | TargetCheck | None = None, **kwargs: Any) -> Any:
    """Build the object tree that ``config`` describes.

    Every mapping with ``_target_`` becomes a call of that name with the mapping's other keys as arguments,
    innermost first; ``_partial_: true`` leaves the call to the receiver. Arguments arrive as plain lists, dicts and
    numbers.

    Interpolations are resolved once. The resolved tree is checked, and the objects are built from that same tree.

    Args:
        config: a node of a composed config, or a plain mapping or list of the same form.
        allowed: see ``check_targets``; for configs of unknown origin. By default every importable name may be called.
        **kwargs: further arguments of the outermost call; they replace those in ``config``.

    Raises:
        ConfigError: names the key of the config, the target and the fault.
    """
    plain, root = to_plain(config)
    return build_targets(plain, root, allowed=allowed, **kwargs)


def build_targets(
    plain: Any, root: str = "", *, allowed: Sequence[str] | TargetCheck | None = None, **kwargs: Any
) -> Any:
    """Build objects from containers without interpolations; strings are never interpreted.

    Args:
        plain: dicts, lists and values, as ``to_plain`` returns them.
        root: key of ``plain`` in the whole config, for messages.
        allowed: see ``check_targets``.
        **kwargs: see ``instantiate``.

    Raises:
        ConfigError: see ``instantiate``.
    """
    calls = list(find_targets(plain, root))
    if allowed is not None:
        check = _as_check(allowed)
        for path, node in calls:
            _refuse_unless_allowed(path, node, check)
    for path, node in calls:
        _check_call(path, node, extra=kwargs if path == root else {})
    return _build(plain, root, kwargs)


def check_targets(config: Any, allowed: Sequence[str] | TargetCheck, *, root: str | None = None) -> None:
    """Refuse a config that would call anything that is not allowed, before any of it is called.

    Args:
        config: a node of a config, or a plain mapping or list.
        allowed: a function that takes a target and returns the reason to refuse it, or None; or prefixes of importable
            names. With prefixes, both the name of the target and the module that defines the object must start with
            one: ``hydet.config.overrides.Path`` is refused, because pathlib defines it.
        root: key of plain containers in the whole config. If given, strings in them are not interpreted.

    Raises:
        ConfigError: names the key, the target, and the ``allow=[...]`` that would permit it.
    """
    check = _as_check(allowed)
    plain, root = to_plain(config) if root is None else (config, root)
    for path, node in find_targets(plain, root):
        _refuse_unless_allowed(path, node, check)


def to_plain(config: Any) -> tuple[Any, str]:
    """Resolve a config to plain containers; also return its key in the whole config."""
    if not isinstance(config, DictConfig | ListConfig):
        if not isinstance(config, Mapping | Sequence) or isinstance(config, str):
            raise ConfigError(f"instantiate needs a mapping or a list, got {type(config).__name__}")
        config = OmegaConf.create(dict(config) if isinstance(config, Mapping) else list(config))
    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from error
    return plain, str(config._get_full_key(None) or "")


def find_targets(node: Any, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each mapping with ``_target_`` and its key, outermost first."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield path, node
        for key, value in node.items():
            yield from find_targets(value, _child(path, key))
    elif isinstance(node, list | tuple):
        for i, value in enumerate(node):
            yield from find_targets(value, f"{path}[{i}]")


def is_below(name: str, prefixes: Sequence[str]) -> bool:
    """Return True if a dotted name equals a prefix or belongs to a package that a prefix names."""
    return any(name == p or name.startswith(p.rstrip(".") + ".") for p in prefixes)


def _child(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)


def _as_check(allowed: Sequence[str] | TargetCheck) -> TargetCheck:
    return allowed if callable(allowed) else functools.partial(_check_prefixes, prefixes=tuple(allowed))


def _check_prefixes(target: object, *, prefixes: Sequence[str]) -> str | None:
    # The name is compared before it is imported, because an import can run code.
    module = target if isinstance(target, str) else str(type(target).__module__)
    if is_below(module, prefixes):
        module = str(getattr(_get_object(target), "__module__", None))
        if is_below(module, prefixes):
            return None
    return (
        f"is outside of what may be built here ({', '.join(prefixes)}); "
        f"if you trust it, allow=[{module.split('.')[0]}]"
    )


def _refuse_unless_allowed(path: str, node: Mapping[str, Any], check: TargetCheck) -> None:
    target = node["_target_"]
    try:
        reason = check(target)
    except ConfigError as error:
        raise ConfigError(f"{path or 'config'}: {error}") from error
    if reason is not None:
        raise ConfigError(f"{path or 'config'}: _target_ {_short(target)} {reason}")


def _short(target: object) -> str:
    text = str(target)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _get_object(target: object) -> Any:
    if not isinstance(target, str):
        return target
    try:
        return hydra.utils.get_object(target)
    except Exception as error:  # importing can raise anything
        raise ConfigError(f"_target_ {_short(target)} cannot be imported: {_hint(target, error)}") from error


def _resolved_function(path: str, node: Mapping[str, Any]) -> Callable[..., Any]:
    try:
        function: Callable[..., Any] = _get_object(node["_target_"])
    except ConfigError as error:
        raise ConfigError(f"{path or 'config'}: {error}") from error
    if not callable(function):
        raise ConfigError(
            f"{path or 'config'}: _target_ {_short(node['_target_'])} is a {type(function).__name__}, not a class or function"
        )
    return function


def _check_call(path: str, node: Mapping[str, Any], extra: Mapping[str, Any]) -> None:
    for key, kind in SPECIAL_KEYS.items():
        if node.get(key) is not None and not isinstance(node[key], kind):
            raise ConfigError(
                f"{_child(path, key)} must be a {getattr(kind, '__name__', kind)}, got {node[key]!r}"
            )
    function = _resolved_function(path, node)
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for key in [*node, *extra]:
        if key not in SPECIAL_KEYS and key not in parameters:
            raise ConfigError(_no_argument(path, node, str(key)))


def _build(node: Any, path: str, extra: Mapping[str, Any]) -> Any:
    if isinstance(node, list | tuple):
        return [_build(value, f"{path}[{i}]", {}) for i, value in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    if "_target_" not in node:
        return {key: _build(value, _child(path, key), {}) for key, value in node.items()}
    function = _resolved_function(path, node)
    arguments: dict[str, Any] = {}
    # The order of the config decides the order of random initialization.
    for key, value in node.items():
        if (key in SPECIAL_KEYS and key != "_args_") or key in extra:
            continue
        arguments[key] = value if node.get("_recursive_") is False else _build(value, _child(path, key), {})
    positional = arguments.pop("_args_", None) or []
    arguments.update(extra)
    try:
        if node.get("_partial_"):
            made = _Partial(function, *positional, **arguments)
            made.path, made.node = path, node
            return made
        return function(*positional, **arguments)
    except ConfigError:  # of a part that was built by its receiver, see ``_Partial``
        raise
    except Exception as error:  # a constructor can raise anything
        raise ConfigError(_explain_failed_call(path, node, error)) from error


class _Partial(functools.partial[Any]):
    """A call that is left to its receiver; if its arguments are wrong, the error names their key in the config."""

    path: str
    node: Mapping[str, Any]

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().__call__(*args, **kwargs)
        except Exception as error:
            # Subclasses of these two say more than a ConfigError would.
            if type(error) not in (TypeError, ValueError):
                raise
            raise ConfigError(_explain_failed_call(self.path, self.node, error)) from error


def _explain_failed_call(path: str, node: Mapping[str, Any], error: Exception) -> str:
    unknown = re.search(r"got an unexpected keyword argument '(\w+)'", str(error))
    if unknown and unknown[1] in node:
        return _no_argument(path, node, unknown[1])
    kind = "" if isinstance(error, ValueError | TypeError) else f"{type(error).__name__}: "
    return f"{path or 'config'}: {kind}{error}"


def _no_argument(path: str, node: Mapping[str, Any], key: str) -> str:
    target = node["_target_"]
    name = target if isinstance(target, str) else getattr(target, "__name__", type(target).__name__)
    known = arguments_of(_get_object(target)) or ()
    return f"{path or 'config'}: {name.rpartition('.')[2]} has no argument {key!r}{nearest(key, known)}"


def _hint(target: str, error: Exception) -> str:
    module, _, name = target.rpartition(".")
    try:
        public = [n for n in dir(hydra.utils.get_object(module)) if n[0] != "_"]
        return f"{module} has no {name!r}{nearest(name, public)}"
    except Exception:
        return " ".join(str(error).splitlines()[-1:]) or type(error).__name__
