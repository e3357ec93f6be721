"""Write files and folders that appear as a whole or not at all, even if the process dies in between."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from .write_errors import naming_write_errors

__all__ = [
    "atomic_file",
    "atomic_folder",
    "discard_folder",
    "flush_to_disk",
    "remove_leftovers",
    "replaced_folders",
    "set_aside",
    "unfinished_path",
    "write_atomically",
]

UNFINISHED, DISCARDED, REPLACED = ".unfinished-", ".discarded-", ".replaced-"
_REPLACED_NAME = re.compile(rf"{re.escape(REPLACED)}(?P<name>.+)-[0-9a-f]{{8}}")


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

    An existing folder of that name is replaced. No system renames a folder over another one, so the old folder first
    gets a name that ``replaced_folders`` finds, and is removed last: if the process dies in between, the old folder or the
    new one is still there. After an error, nothing of the new folder remains.

    Raises:
        WriteError: if the folder cannot be written.
    """
    with naming_write_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = unfinished_path(folder)
        unfinished.mkdir()
        try:
            yield unfinished
            for file in sorted(unfinished.rglob("*")):
                flush_to_disk(file)
            flush_to_disk(unfinished)
            replaced = _rename_over(unfinished, folder)
            flush_to_disk(folder.parent)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
    if replaced is not None:
        shutil.rmtree(replaced, ignore_errors=True)


def _rename_over(new: Path, folder: Path) -> Path | None:
    """Rename ``new`` to ``folder``; return the path of the folder that had this name, or None."""
    if not folder.exists():
        os.rename(new, folder)
        return None
    replaced = _sibling(folder, REPLACED)
    os.rename(folder, replaced)
    try:
        os.rename(new, folder)
    except OSError:
        os.rename(replaced, folder)
        raise
    return replaced


def replaced_folders(parent: Path) -> dict[Path, Path]:
    """Return the folders in ``parent`` that were being replaced when their process died.

    Returns:
        From the path that a folder had to the path that it has now. The new folder may be under the old path already.
    """
    matches = ((path, _REPLACED_NAME.fullmatch(path.name)) for path in sorted(parent.glob(f"{REPLACED}*")))
    return {parent / match["name"]: path for path, match in matches if match is not None}


@contextlib.contextmanager
def atomic_file(path: Path, *, flush: bool = True) -> Iterator[Path]:
    """Yield the path of a new file to write, and rename it to ``path`` when the block ends without an error.

    Readers see the file complete, either in its old or in its new state. After an error, the old state remains.

    Args:
        path: path of the file; its folder is created if necessary.
        flush: wait until the disk holds the file, so that it also survives a power failure. Slow for many small files.

    Raises:
        WriteError: if the file cannot be written.
    """
    with naming_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = unfinished_path(path)
        try:
            yield unfinished
            if flush:
                flush_to_disk(unfinished)
            os.replace(unfinished, path)
        except BaseException:
            with contextlib.suppress(OSError):  # its folder may be gone
                unfinished.unlink(missing_ok=True)
            raise
        if flush:
            flush_to_disk(path.parent)


def write_atomically(path: Path, text: str) -> None:
    """Write a UTF-8 text file that readers see complete, either in its old or in its new state.

    Raises:
        WriteError: if the file cannot be written.
    """
    with atomic_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="\n")


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


def set_aside(folder: Path) -> Path:
    """Rename a folder to ``set_aside_<name>``, with a number behind it if that exists, and return its new path."""
    name = f"set_aside_{folder.name}"
    new_path, number = folder.with_name(name), 1
    while new_path.exists():
        number += 1
        new_path = folder.with_name(f"{name}-{number}")
    os.rename(folder, new_path)
    return new_path


def remove_leftovers(folder: Path) -> None:
    """Remove what interrupted writes and removals left in ``folder``."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if not path.name.startswith((UNFINISHED, DISCARDED, REPLACED)):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):  # still open in another process, on Windows
                path.unlink(missing_ok=True)


def unfinished_path(path: Path) -> Path:
    """Return a path beside ``path`` for its unfinished content, which ``remove_leftovers`` removes."""
    return _sibling(path.with_name(path.name[:40]), UNFINISHED)  # names can have 255 bytes at most


def _sibling(path: Path, prefix: str) -> Path:
    """Return a path beside ``path`` that nothing else uses, since a rename is atomic only within a file system."""
    return path.parent / f"{prefix}{path.name}-{uuid.uuid4().hex[:8]}"
