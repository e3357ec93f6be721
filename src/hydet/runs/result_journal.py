"""A file of results that grows image by image, so that a process that is killed loses nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

__all__ = ["ResultJournal"]


class ResultJournal:
    """Writes one line of JSON per image, each complete before the next image begins.

    Args:
        path: the file; it and its folder are created with the first line, in place of an older file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream: TextIO | None = None

    def append(self, line: Mapping[str, object]) -> None:
        """Write one line and hand it to the operating system, which keeps it if this process ends."""
        if self._stream is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self.path.open("w", encoding="utf-8", newline="\n")
        self._stream.write(json.dumps(line) + "\n")
        self._stream.flush()

    def remove(self) -> None:
        """Close and remove the file, once other files hold its content."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
            self.path.unlink(missing_ok=True)
