"""Stages of a cascade that differ in a few arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

__all__ = ["make_each"]

T = TypeVar("T")


def make_each(*, make: Callable[..., T], each: Sequence[Mapping[str, Any]]) -> list[T]:
    """Call ``make`` once for every entry of ``each``.

    Args:
        make: a class or ``functools.partial`` with the arguments that all have in common.
        each: the arguments that one of them has for itself; empty where there are none.

    Example:
        >>> make_each(make=partial(Matcher, labels=[0, 1]), each=[{"thresholds": [0.5]}, {"thresholds": [0.6]}])
    """
    if not callable(make):
        raise TypeError(f"make_each: make must be callable, got {type(make).__name__}; is _partial_ missing?")
    return [make(**arguments) for arguments in each]
