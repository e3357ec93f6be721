"""Terminal output of a run: text and a progress bar."""

from __future__ import annotations

import contextlib
import errno
import os
import sys

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import Progress

from hydet.distributed import is_main_process
from hydet.files import naming_write_errors

__all__ = ["OutputConsole", "Terminal", "discard_stream"]


class OutputConsole(Console):
    """A console that raises ``BrokenPipeError`` if the reader of its output has ended; rich would end the process."""

    def on_broken_pipe(self) -> None:
        """Stop printing.

        Raises:
            BrokenPipeError: always.
        """
        self.quiet = True
        discard_stream(sys.stdout)
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def discard_stream(stream: object) -> None:
    """Send what the process still writes to a closed stream to nowhere, so that Python can end without an error."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # the stream may have no descriptor
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # type: ignore[attr-defined]  # checked by the context
        os.close(nowhere)


class Terminal:
    """Print on the main process, above a progress bar if one is visible.

    Attributes:
        console: console of the main process; silent on the others.
        progress: the visible progress bar, to which other parts can add tasks, or None.
        closed: True once the program that reads the output has ended, as ``| head`` does. Nothing is printed then.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console if console is not None else OutputConsole(quiet=not is_main_process())
        self.progress: Progress | None = None
        self.closed = False

    def show_progress(self, progress: Progress) -> None:
        """Start a progress bar and print above it from now on."""
        self.hide_progress()
        progress.start()
        self.progress = progress

    def hide_progress(self) -> None:
        """Stop the progress bar, if there is one."""
        if self.progress is not None:
            self.progress.stop()
            self.progress = None

    def print(self, *objects: RenderableType) -> None:
        """Print strings, which may contain rich's markup, or other objects that rich can render, such as tables.

        Raises:
            WriteError: if the output goes to a file that cannot be written.
        """
        if self.closed:
            return
        console = self.progress.console if self.progress is not None else self.console
        options = {"highlight": False, "soft_wrap": True} if all(isinstance(o, str) for o in objects) else {}
        try:
            with naming_write_errors("standard output"):
                console.print(*objects, **options)  # type: ignore[arg-type]  # keywords of print
        except OSError as error:
            if error.errno != errno.EPIPE:
                raise
            self.closed = True

    def print_ending(self, text: str) -> None:
        """Print the last words of a run, on standard error if standard output is closed."""
        if self.closed:
            with contextlib.suppress(OSError):
                print(text, file=sys.stderr)
        else:
            self.print(escape(text))
