"""Search for the image files that a COCO JSON file names, also under the forms that other tools give to names."""

from __future__ import annotations

import difflib
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, unquote, unquote_plus, urlsplit

__all__ = ["ImageFinder"]

_MAX_COMPARED = 20_000  # names of a folder that are compared to find the nearest one, which takes 0.1 s
_MAX_NEAREST = 20  # searches for the nearest name per dataset; reports list no more examples


class ImageFinder:
    """Finds files below a folder; reads each subfolder once, which is faster than a system call per file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files_in: dict[str, set[str]] = {}
        self._folders_in: dict[str, set[str]] = {}
        self._folded_in: dict[str, dict[str, list[str]]] = {}
        self._num_nearest = 0

    def __contains__(self, name: str) -> bool:
        """Return True if there is a file of exactly this name, a path relative to the folder."""
        parent, base = os.path.split(name)
        return base in self._files(parent)

    def find_similar(self, name: str) -> str | None:
        """Return the name of the file that a name in another form stands for, or None if there is none.

        Forms: backslashes, percent codes, URLs, folders in front of the name that do not exist here, and another case,
        Unicode normal form or spaces. A form that fits several files is not used.
        """
        for form in _forms(name):
            path = self._walk(form)
            if path is not None:
                return path
        return None

    def nearest(self, name: str) -> str | None:
        """Return the most similar file name in the folder of a missing file, or None if none is similar."""
        parent, base = os.path.split(name.replace("\\", "/"))
        parent = parent if self._files(parent) else ""
        candidates = self._files(parent)
        self._num_nearest += 1
        if self._num_nearest > _MAX_NEAREST or len(candidates) > _MAX_COMPARED:
            return None
        close = difflib.get_close_matches(base, sorted(candidates), n=1)
        return os.path.join(parent, close[0]) if close else None

    def _files(self, parent: str) -> set[str]:
        """Return the names of the files in a subfolder."""
        if parent not in self._files_in:
            files: set[str] = set()
            folders: set[str] = set()
            try:
                with os.scandir(self.folder / parent) as entries:
                    for entry in entries:
                        (folders if entry.is_dir() else files).add(entry.name)
            except (OSError, ValueError):  # no such folder, or a name with null characters or lone surrogates
                pass
            self._files_in[parent], self._folders_in[parent] = files, folders
        return self._files_in[parent]

    def _walk(self, form: str) -> str | None:
        """Return the actual path of a file whose path differs only in case, normal form and spaces, if it is unique."""
        path = ""
        parts = form.split("/")
        for position, part in enumerate(parts):
            files = self._files(path)
            is_last = position == len(parts) - 1
            names = files if is_last else self._folders_in[path]
            if part in names:
                path = os.path.join(path, part)
                continue
            folded = self._folded_in.get(f"{path}/{is_last}")
            if folded is None:
                folded = {}
                for name in names:
                    folded.setdefault(_fold(name), []).append(name)
                self._folded_in[f"{path}/{is_last}"] = folded
            matches = folded.get(_fold(part), [])
            if len(matches) != 1:
                return None
            path = os.path.join(path, matches[0])
        return path


def _fold(name: str) -> str:
    """Return a name in the form that names of different case, Unicode normal form and spaces share."""
    return unicodedata.normalize("NFC", "".join(unicodedata.normalize("NFC", name).casefold().split()))


def _forms(name: str) -> Iterator[str]:
    """Yield relative paths that a name may stand for, the nearest to the name first."""
    paths = [name]
    if "://" in name or "?" in name:
        try:
            url = urlsplit(name)
        except ValueError:  # such as a bracket that is not closed
            return
        paths = [value for values in parse_qs(url.query).values() for value in values] + [url.path]
    seen: set[str] = set()
    for path in paths:
        for text in (path, unquote(path), unquote_plus(path)):
            parts = [part for part in text.replace("\\", "/").strip().split("/") if part not in ("", ".")]
            for start in range(len(parts)):
                form = "/".join(parts[start:])
                if form not in seen and ".." not in parts[start:]:
                    seen.add(form)
                    yield form
