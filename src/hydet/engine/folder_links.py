"""Links from a fixed name, such as ``checkpoints/last``, to one of the folders beside it."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from .atomic_writes import UNFINISHED, flush_to_disk, write_atomically

__all__ = ["link_folder", "link_target"]


def link_folder(link: Path, folder: Path) -> None:
    """Make ``link`` lead to ``folder``, which lies beside it, and replace the link atomically.

    The link is a symbolic link. Where the system does not allow symbolic links, as Windows does by default, it is a
    text file that holds the name of the folder.
    """
    unfinished = link.parent / f"{UNFINISHED}{link.name}-{uuid.uuid4().hex[:8]}"
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
        return link.parent / link.read_text(encoding="utf-8").strip()
    return None


def _replace(new: Path, link: Path) -> None:
    try:
        os.replace(new, link)
    except PermissionError:
        # Windows treats an existing link to a folder as a folder, which it does not replace.
        link.unlink()
        os.rename(new, link)
