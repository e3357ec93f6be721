"""A file of results that grows image by image, so that a process that is killed loses nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from hydet.files import naming_write_errors

__all__ = ["ResultJournal"]


class ResultJournal:
    """Writes one line of JSON per image, each complete before the next image begins.

    Args:
        path: the file; it and its folder are created with the first line, in place of an older file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._has_begun = False

    def append(self, line: Mapping[str, object]) -> None:
        """Write one line and hand it to the operating system, which keeps it if this process ends.

        Raises:
            WriteError: if the line cannot be written.
        """
        with naming_write_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            mode = "a" if self._has_begun else "w"
            # Opened for every line: a stream that stays open would keep what a full disk refused, and fail again later.
            with self.path.open(mode, encoding="utf-8", newline="\n") as stream:
                stream.write(json.dumps(line) + "\n")
            self._has_begun = True

    def remove(self) -> None:
        """Remove the file, once other files hold its content."""
        if self._has_begun:
            self.path.unlink(missing_ok=True)
            self._has_begun = False
