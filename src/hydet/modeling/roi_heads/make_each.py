"""Construction of several parts that share most arguments, such as the stages of a cascade."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

__all__ = ["make_each"]

T = TypeVar("T")


def make_each(*, make: Callable[..., T], each: Sequence[Mapping[str, Any]], **shared: Any) -> list[T]:
    """Call ``make`` once per entry of ``each``.

    Args:
        make: a class, or a ``functools.partial`` that holds the shared arguments.
        each: the arguments of each call; an empty mapping adds none.
        **shared: further arguments of all calls, such as sizes that are known only when the parts are joined.

    Returns:
        The results, in the order of ``each``.

    Raises:
        TypeError: if ``make`` is not callable, as happens in YAML without ``_partial_: true``.

    Example:
        >>> make_each(make=partial(Matcher, labels=[0, 1]), each=[{"thresholds": [0.5]}, {"thresholds": [0.6]}])
    """
    if not callable(make):
        raise TypeError(f"make_each: make must be callable, got {type(make).__name__}; is _partial_ missing?")
    return [make(**{**shared, **arguments}) for arguments in each]
