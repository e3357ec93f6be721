"""Lines on the terminal that hold paths and names of the user."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from .command import printable

__all__ = ["print_lines"]


def print_lines(console: Console, *lines: str) -> None:
    """Print lines as they are: never read as rich's markup, and never broken at the width of the terminal.

    Control characters are escaped, so that a name with a line break stays on its line.
    """
    for line in lines:
        console.print(Text(printable(line)), soft_wrap=True)
