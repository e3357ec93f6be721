"""What goes wrong with data."""

from __future__ import annotations

__all__ = ["DataError"]


class DataError(ValueError):
    """A file or an annotation is broken; the message is one line that names it."""
