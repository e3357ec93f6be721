"""Which arguments a part takes, those that it hands to its base class included."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import hydra.utils
from omegaconf import DictConfig

__all__ = ["arguments_of", "arguments_of_node"]


def arguments_of(function: Callable[..., Any] | type) -> list[str] | None:
    """Names of the arguments of a class or function; ``None`` if they cannot be told, or any name will do.

    ``**kwargs`` of a constructor count as those of the next class in its method resolution order, since that is where
    they go.
    """
    makers: list[Any] = []
    if _is_plain(function):
        makers = [c.__init__ for c in inspect.getmro(function) if "__init__" in c.__dict__]  # type: ignore[arg-type,misc]
    found: list[str] = []
    for maker in makers or [function]:
        try:
            parameters = list(inspect.signature(maker).parameters.values())
        except (TypeError, ValueError):
            return None
        own = parameters[1:] if makers else parameters  # without self
        found += [p.name for p in own if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
        if not any(p.kind is p.VAR_KEYWORD for p in own):
            return list(dict.fromkeys(found))
    return None


def arguments_of_node(node: DictConfig) -> list[str]:
    """Arguments of the part that a section of a config describes; none if it describes no part that can be found."""
    target = node._get_node("_target_", validate_access=False)
    try:
        return arguments_of(hydra.utils.get_object(target._value())) or []  # type: ignore[union-attr]
    except Exception:  # an import may raise anything; whoever builds the part reports it
        return []


def _is_plain(function: Any) -> bool:
    """A class that ``__init__`` alone makes: neither ``__new__`` nor its metaclass's ``__call__`` is special."""
    return (
        inspect.isclass(function)
        and function.__new__ is object.__new__
        and type(function).__call__ is type.__call__
    )
