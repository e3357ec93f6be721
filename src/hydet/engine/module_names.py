"""Summarize lists of tensors by the modules that hold them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

__all__ = ["summarize_modules"]

MAX_MODULES = 8


def summarize_modules(names: Iterable[str], others: Iterable[str] = ()) -> str:
    """Return the largest modules that hold none of the other tensors, with the numbers of tensors, as short text.

    Args:
        names: names of tensors.
        others: names of all other tensors of the model, or of the file.
    """
    partial = {prefix for name in others for prefix in _prefixes(name)}
    counts = Counter(_largest_module(name, partial) for name in names)
    parts = [f"{name} ({count} tensors)" if count > 1 else name for name, count in counts.most_common()]
    more = len(parts) - MAX_MODULES
    return ", ".join(parts[:MAX_MODULES]) + (f" and {more} more" if more > 0 else "")


def _largest_module(name: str, partial: set[str]) -> str:
    return next((prefix for prefix in _prefixes(name) if prefix not in partial), name)


def _prefixes(name: str) -> Iterable[str]:
    """Yield ``a``, ``a.b`` and so on for ``a.b.c``."""
    parts = name.split(".")
    for end in range(1, len(parts)):
        yield ".".join(parts[:end])
