"""Names of the arguments that a class or function takes, including those that it passes on to its base class."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import hydra.utils
from omegaconf import DictConfig

__all__ = ["arguments_of", "arguments_of_node"]


def arguments_of(function: Callable[..., Any] | type) -> list[str] | None:
    """Return the argument names of a class or function, or None if they are unknown or any name is accepted.

    ``**kwargs`` of a constructor stand for the arguments of the next class in its method resolution order, which
    receives them.
    """
    constructors: list[Callable[..., Any]] = []
    if inspect.isclass(function) and _is_built_by_init(function):
        constructors = [c.__dict__["__init__"] for c in inspect.getmro(function) if "__init__" in c.__dict__]
    names: list[str] = []
    for callable_ in constructors or [function]:
        try:
            parameters = list(inspect.signature(callable_).parameters.values())
        except (TypeError, ValueError):
            return None
        if constructors:
            parameters = parameters[1:]  # without self
        names += [p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return list(dict.fromkeys(names))
    return None


def arguments_of_node(node: DictConfig) -> list[str]:
    """Return the argument names of the part that a section describes; an empty list if it describes no known part."""
    target = node._get_node("_target_", validate_access=False)
    try:
        return arguments_of(hydra.utils.get_object(target._value())) or []  # type: ignore[union-attr]
    except Exception:  # an import can raise anything; building the part will report it
        return []


def _is_built_by_init(cls: type) -> bool:
    """Return True if neither ``__new__`` nor the ``__call__`` of the metaclass takes part in the construction."""
    return cls.__new__ is object.__new__ and type(cls).__call__ is type.__call__
