"""The error for broken data."""

from __future__ import annotations

__all__ = ["DataError"]


class DataError(ValueError):
    """A broken file or annotation; the message is one line that names it."""
