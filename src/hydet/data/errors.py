"""The error for broken data."""

from __future__ import annotations

import re

__all__ = ["DataError", "one_line"]

# Control characters, line and paragraph separators, and lone surrogates.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class DataError(ValueError):
    """Raised for a broken file or annotation. The message is one line that names it."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def one_line(text: str) -> str:
    """Return text as one line that can be printed: control characters and lone surrogates are escaped."""
    return _UNPRINTABLE.sub(lambda match: repr(match.group())[1:-1], text)
