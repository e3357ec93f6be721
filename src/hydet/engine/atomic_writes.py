"""Write files and folders that appear as a whole or not at all, even if the process dies in between."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

__all__ = ["atomic_folder", "discard_folder", "flush_to_disk", "remove_leftovers", "write_atomically"]

UNFINISHED, DISCARDED = ".unfinished-", ".discarded-"


def flush_to_disk(path: Path) -> None:
    """Wait until the disk holds what was written to a file or folder.

    Folders are flushed where the system allows it: Windows cannot open them, and some network file systems cannot
    flush them. Their entries then reach the disk whenever the system writes them.
    """
    if path.is_dir():
        with contextlib.suppress(OSError):
            _fsync(path, os.O_RDONLY)
    else:
        _fsync(path, os.O_RDWR)  # Windows flushes only descriptors that can write


def _fsync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder to fill, and rename it to ``folder`` when the block ends without an error.

    An existing folder of that name is replaced. After an error, nothing of the new folder remains.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = _sibling(folder, UNFINISHED)
    unfinished.mkdir()
    try:
        yield unfinished
        for file in sorted(unfinished.rglob("*")):
            flush_to_disk(file)
        flush_to_disk(unfinished)
        replaced = _sibling(folder, DISCARDED) if folder.exists() else None
        if replaced is not None:
            os.rename(folder, replaced)
        os.rename(unfinished, folder)
        flush_to_disk(folder.parent)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    if replaced is not None:
        shutil.rmtree(replaced, ignore_errors=True)


def write_atomically(path: Path, text: str) -> None:
    """Write a UTF-8 text file that readers see complete, either in its old or in its new state."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = _sibling(path, UNFINISHED)
    try:
        unfinished.write_text(text, encoding="utf-8", newline="\n")
        flush_to_disk(unfinished)
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    flush_to_disk(path.parent)


def discard_folder(folder: Path) -> None:
    """Remove a folder so that no reader sees half of it.

    Windows refuses to rename a folder with an open file. The folder then stays as it is, for a later call to remove.
    """
    doomed = _sibling(folder, DISCARDED)
    try:
        os.rename(folder, doomed)
    except PermissionError:
        return
    shutil.rmtree(doomed, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what interrupted writes and removals left in ``folder``."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if not path.name.startswith((UNFINISHED, DISCARDED)):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):  # still open in another process, on Windows
                path.unlink(missing_ok=True)


def _sibling(path: Path, prefix: str) -> Path:
    """Return a path beside ``path`` that nothing else uses, since a rename is atomic only within a file system."""
    return path.parent / f"{prefix}{path.name}-{uuid.uuid4().hex[:8]}"
