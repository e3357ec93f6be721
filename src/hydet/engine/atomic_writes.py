"""Files and folders that are there as a whole or not at all, whenever the process dies."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

__all__ = [
    "atomic_folder",
    "discard",
    "point_to",
    "pointer_target",
    "remove_garbage",
    "sync",
    "write_atomically",
]

UNFINISHED, DISCARDED = ".unfinished-", ".discarded-"


def sync(path: Path) -> None:
    """Have the disk hold what was written to this file or folder."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:  # folders on Windows
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Fill the folder that this yields; when the block ends well it becomes ``folder``.

    A folder of that name is replaced. After an error, nothing of the new one remains.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.parent / f"{UNFINISHED}{folder.name}-{uuid.uuid4().hex[:8]}"
    unfinished.mkdir()
    try:
        yield unfinished
        for file in sorted(unfinished.rglob("*")):
            sync(file)
        sync(unfinished)
        replaced = (
            folder.parent / f"{DISCARDED}{folder.name}-{uuid.uuid4().hex[:8]}" if folder.exists() else None
        )
        if replaced is not None:
            os.rename(folder, replaced)
        os.rename(unfinished, folder)
        sync(folder.parent)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    if replaced is not None:
        shutil.rmtree(replaced, ignore_errors=True)


def write_atomically(path: Path, text: str) -> None:
    """Write a text file that readers see complete, in its old or its new state."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.parent / f"{UNFINISHED}{path.name}-{uuid.uuid4().hex[:8]}"
    try:
        unfinished.write_text(text)
        sync(unfinished)
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    sync(path.parent)


def point_to(pointer: Path, folder: Path) -> None:
    """Make ``pointer`` a link to ``folder`` beside it; a text file with its name where links are not allowed."""
    unfinished = pointer.parent / f"{UNFINISHED}{pointer.name}-{uuid.uuid4().hex[:8]}"
    try:
        os.symlink(folder.name, unfinished, target_is_directory=True)
    except OSError:
        write_atomically(pointer, folder.name + "\n")
        return
    try:
        os.replace(unfinished, pointer)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    sync(pointer.parent)


def pointer_target(pointer: Path) -> Path | None:
    """What ``point_to`` pointed to; ``None`` where there is no pointer."""
    if pointer.is_symlink():
        return pointer.parent / os.readlink(pointer)
    if pointer.is_file():
        return pointer.parent / pointer.read_text().strip()
    return None


def discard(folder: Path) -> None:
    """Remove a folder so that nobody finds half of it."""
    doomed = folder.parent / f"{DISCARDED}{folder.name}-{uuid.uuid4().hex[:8]}"
    os.rename(folder, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def remove_garbage(folder: Path) -> None:
    """Remove what interrupted writes and removals have left in ``folder``."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.name.startswith((UNFINISHED, DISCARDED)):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
