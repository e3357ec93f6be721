"""Errors of writing, whatever library raised them, as one error that names the file and the cause."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

__all__ = ["WriteError", "is_write_error", "naming_write_errors"]

# The remedy for each cause that only writing has. Windows has no quotas.
_REMEDIES = {
    errno.ENOSPC: "`df -h` and `df -i` show the free space and inodes",
    errno.EFBIG: "`ulimit -f` shows the largest size of a file",
    errno.EROFS: "choose another output_dir",
    **({errno.EDQUOT: "`quota` shows the limit"} if hasattr(errno, "EDQUOT") else {}),
}
# safetensors is written in Rust, whose errors end in this.
_RUST_ERROR = re.compile(r"\(os error (?P<number>\d+)\)")


class WriteError(OSError):
    """A file or folder that cannot be written.

    Args:
        number: error number of the operating system, such as ``errno.ENOSPC``.
        cause: its description.
        path: the file or folder.

    Attributes:
        consequences: what became of other results, for the end of the message; callers append to it.
    """

    def __init__(self, number: int, cause: str, path: str) -> None:
        super().__init__(number, cause, path)
        self.consequences: list[str] = []

    def __str__(self) -> str:
        remedy = _REMEDIES.get(self.errno or 0)
        line = f"cannot write {self.filename}: {self.strerror}" + (f" ({remedy})" if remedy else "")
        return "; ".join([line, *self.consequences])


def is_write_error(error: BaseException) -> bool:
    """Return True for an error that only writing can have, such as that of a full disk."""
    return isinstance(error, WriteError) or (isinstance(error, OSError) and error.errno in _REMEDIES)


@contextlib.contextmanager
def naming_write_errors(path: str | Path) -> Iterator[None]:
    """Raise the errors of a block that writes ``path`` as ``WriteError``.

    Streams raise errors without a name, and torch and safetensors raise errors of their own kinds.

    Raises:
        WriteError: if the operating system refused to write. Other errors pass through.
    """
    try:
        yield
    except WriteError:
        raise
    except Exception as error:
        cause = _system_error(error)
        if cause is None:
            raise
        raise WriteError(cause[0], cause[1], str(path)) from error


def _system_error(error: Exception) -> tuple[int, str] | None:
    """Return number and description of the error of the operating system behind ``error``, or None."""
    if isinstance(error, OSError):
        return (error.errno, error.strerror or os.strerror(error.errno)) if error.errno is not None else None
    if isinstance(
        error, RuntimeError
    ):  # torch loses the error of the stream, but Python keeps it as the context
        context = error.__cause__ or error.__context__
        return _system_error(context) if isinstance(context, Exception) else None
    match = _RUST_ERROR.search(str(error))
    if match is None:
        return None
    number = int(match["number"])
    return number, os.strerror(number)
