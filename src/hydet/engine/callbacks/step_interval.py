"""Intervals between what a callback does, in optimizer steps."""

from __future__ import annotations

__all__ = ["check_interval", "is_due"]


def is_due(step: int, every: int, max_steps: int) -> bool:
    """Return True at every multiple of ``every`` and at the last step; an interval of 0 has no multiples."""
    return step == max_steps or (every > 0 and step % every == 0)


def check_interval(every: int) -> int:
    """Return ``every`` if it is a valid number of steps.

    Raises:
        ValueError: if it is not a whole number of at least 1.
    """
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise ValueError(f"every must be a number of steps of at least 1, got {every!r}")
    return every
