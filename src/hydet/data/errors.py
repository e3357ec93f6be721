"""The error for broken data."""

from __future__ import annotations

__all__ = ["DataError"]


class DataError(ValueError):
    """Raised for a broken file or annotation. The message is one line that names it."""
