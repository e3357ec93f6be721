"""Errors of worker processes, carried to the main process or described in one line."""

from __future__ import annotations

import contextlib
import dataclasses
import pickle
import re
import traceback
from collections.abc import Iterator
from typing import NoReturn

from hydet.data.errors import DataError, one_line

__all__ = ["WorkerFailure", "describe_worker_death", "explain_worker_death"]

_SHARED_MEMORY = (
    "shared memory (/dev/shm) has no room for a batch: give the container more, such as docker run --shm-size=8g, or "
    "set num_workers=0"
)
_SHM_SIGNS = ("shared memory", "/dev/shm", "torch_shm", "shm file", "No space left on device")
_DEATHS = (
    re.compile(r"DataLoader worker \(pid\(?s?\)? ?(?P<pid>\d+)\) is killed by signal: (?P<signal>[^.]*)\."),
    re.compile(r"DataLoader worker \(pid (?P<pid>\d+)\) exited unexpectedly with exit code (?P<code>-?\d+)"),
    re.compile(r"DataLoader worker \(pid\(s\) (?P<pid>[\d, ]+)\) exited unexpectedly"),
)
_BUS_ERROR = "Bus error"  # writing to a page of shared memory that does not exist


@dataclasses.dataclass(frozen=True)
class WorkerFailure:
    """An exception in a worker process.

    torch would raise it with the traceback of the worker as its message. This class sends the exception itself, so that
    the same error has the same message with any number of workers.

    Args:
        error: the exception, or None if it cannot be pickled.
        summary: type and message of the exception.
        trace: traceback in the worker.
    """

    error: Exception | None
    summary: str
    trace: str

    @classmethod
    def of(cls, error: Exception) -> WorkerFailure:
        """Describe an exception that is being handled in a worker."""
        trace = "".join(traceback.format_exception(error))
        summary = one_line(f"{type(error).__name__}: {error}")
        if _is_out_of_shared_memory(error):
            return cls(OSError(_SHARED_MEMORY), summary, trace)
        return cls(_picklable(error), summary, trace)

    def throw(self) -> NoReturn:
        """Raise the exception in this process.

        Raises:
            Exception: the exception of the worker, whose traceback is added as a note.
            ChildProcessError: if that exception could not be pickled.
        """
        error = self.error
        if error is None:
            error = ChildProcessError(f"a worker process that loads images failed: {self.summary}")
        if not isinstance(error, DataError | OSError):  # their messages name the file or the cause
            error.add_note(f"raised in a worker process:\n{self.trace}")
        raise error


def _picklable(error: Exception) -> Exception | None:
    """Return a copy of the exception as the main process will receive it, or None if it cannot be pickled."""
    try:
        copy = pickle.loads(pickle.dumps(error))
    except Exception:  # user-defined exceptions fail in many ways
        return None
    return copy if isinstance(copy, Exception) and str(copy) == str(error) else None


def _is_out_of_shared_memory(error: Exception) -> bool:
    return isinstance(error, RuntimeError | OSError) and any(sign in str(error) for sign in _SHM_SIGNS)


def describe_worker_death(error: BaseException) -> str | None:
    """Return one line about a worker process that died, if torch raised ``error`` for that reason, otherwise None.

    torch raises it wherever the main process happens to be, so the caller may be far from the loader.
    """
    if not isinstance(error, RuntimeError):
        return None
    # torch's error may wrap the one that names the signal.
    texts = [str(link) for link in _chain(error)]
    matches = (pattern.search(text) for pattern in _DEATHS for text in texts)
    match = next((m for m in matches if m is not None), None)
    if match is None:
        return None
    groups = match.groupdict()
    cause = groups.get("signal") or ""
    worker = f"the worker process {groups['pid'].strip()}, which loads images,"
    if cause.startswith(_BUS_ERROR):
        return f"{worker} was stopped by a bus error: {_SHARED_MEMORY}"
    if cause.startswith("Killed"):
        return (
            f"{worker} was killed, usually because memory ran out: use fewer workers or smaller batches, or set "
            "num_workers=0"
        )
    ending = f"was stopped by a signal ({cause})" if cause else "ended unexpectedly"
    if groups.get("code") is not None:
        ending = f"ended unexpectedly with exit code {groups['code']}"
    return f"{worker} {ending}; num_workers=0 loads images in the main process and shows the error"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and those that it was raised from."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


@contextlib.contextmanager
def explain_worker_death() -> Iterator[None]:
    """Turn torch's error about a dead worker process into a ``ChildProcessError`` of one line."""
    try:
        yield
    except RuntimeError as error:
        description = describe_worker_death(error)
        if description is None:
            raise
        raise ChildProcessError(description) from error
