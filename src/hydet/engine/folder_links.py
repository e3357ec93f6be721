"""Links from a fixed name, such as ``checkpoints/last``, to one of the folders beside it."""

from __future__ import annotations

import os
from pathlib import Path

from hydet.files import flush_to_disk, naming_write_errors, unfinished_path, write_atomically

__all__ = ["link_folder", "link_target"]

_LONGEST_NAME = 4096  # bytes of a path on Linux; a longer text is not that of a link


def link_folder(link: Path, folder: Path) -> None:
    """Make ``link`` lead to ``folder``, which lies beside it, and replace the link atomically.

    The link is a symbolic link. Where the system does not allow symbolic links, as Windows does by default, it is a
    text file that holds the name of the folder.

    Raises:
        WriteError: if the link cannot be written.
    """
    with naming_write_errors(link):
        unfinished = unfinished_path(link)
        try:
            os.symlink(folder.name, unfinished, target_is_directory=True)
        except (OSError, NotImplementedError):
            if link.is_symlink():
                link.unlink()  # Windows does not replace a link to a folder by a file
            write_atomically(link, folder.name + "\n")
            return
        try:
            _replace(unfinished, link)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        flush_to_disk(link.parent)


def link_target(link: Path) -> Path | None:
    """Return the folder that ``link_folder`` linked to, or None if there is no link."""
    if link.is_symlink():
        return link.parent / os.readlink(link)
    if link.is_file():
        with link.open("rb") as file:
            name = file.read(_LONGEST_NAME).decode("utf-8", errors="replace").strip()
        return link.parent / name if name and name.isprintable() else None
    return None


def _replace(new: Path, link: Path) -> None:
    try:
        os.replace(new, link)
    except PermissionError:
        # Windows treats an existing link to a folder as a folder, which it does not replace.
        link.unlink()
        os.rename(new, link)
