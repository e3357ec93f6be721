"""Errors of writing during a run, after which every process ends at the same complete step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hydet.distributed import all_gather
from hydet.files import WriteError, is_write_error

__all__ = ["OutputFailures"]


class OutputFailures:
    """Keeps the first error of writing, so that a full disk does not end a run in the middle of a step.

    Only the main process writes. If its error ended it at once, the other processes would wait for it, and the state of
    the run could no longer be saved.

    Attributes:
        error: the first error of this process, or of another one after ``raise_on_all_processes``.
    """

    def __init__(self) -> None:
        self.error: WriteError | None = None

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Keep an error of writing inside the block instead of raising it; other errors pass through."""
        try:
            yield
        except OSError as error:
            if not is_write_error(error):
                raise
            if self.error is None:
                self.error = error if isinstance(error, WriteError) else _named(error)

    def raise_on_all_processes(self) -> None:
        """Raise the error that any process kept; every process must call this method.

        Raises:
            WriteError: on all processes, if one of them kept an error.
        """
        errors = [error for error in all_gather(self.error) if error is not None]
        if errors:
            self.error = self.error or errors[0]
            raise self.error


def _named(error: OSError) -> WriteError:
    named = WriteError(error.errno or 0, error.strerror or str(error), error.filename or "a file of the run")
    named.__cause__ = error
    return named
