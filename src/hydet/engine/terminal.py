"""Terminal output of a run: text and a progress bar."""

from __future__ import annotations

from rich.console import Console, RenderableType
from rich.progress import Progress

from hydet.distributed import is_main_process

__all__ = ["Terminal"]


class Terminal:
    """Print on the main process, above a progress bar if one is visible.

    Attributes:
        console: console of the main process; silent on the others.
        progress: the visible progress bar, to which other parts can add tasks, or None.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console if console is not None else Console(quiet=not is_main_process())
        self.progress: Progress | None = None

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
        """Print strings, which may contain rich's markup, or other objects that rich can render, such as tables."""
        console = self.progress.console if self.progress is not None else self.console
        if all(isinstance(part, str) for part in objects):
            console.print(*objects, highlight=False, soft_wrap=True)
        else:
            console.print(*objects)
