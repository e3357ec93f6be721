"""Tables for the terminal: compact, with numbers that never wrap, and long ones in blocks side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.table import Table
from rich.text import Text

__all__ = ["BlockTable", "compact_table", "format_percent"]

MAX_ROWS, MAX_BLOCKS = 20, 3
# A narrower terminal gets fewer blocks rather than names that are cut more.
MIN_NAME_WIDTH = 12


def compact_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Return a table without lines between columns.

    Args:
        title: title above the table.
        columns: headers; the first column holds names and is left-aligned, the others numbers.
        rows: cells of each row, one per column.
    """
    table = _empty_table(title)
    _add_block(table, columns, rows, name_width=None)
    for row in rows:
        table.add_row(*[_cell(cell) for cell in row])
    return table


class BlockTable:
    """A table of names and numbers whose rows fill up to three blocks side by side, as the width allows.

    Numbers keep their width. A name that has no space for all of it ends with an ellipsis.

    Args:
        title: title above the table.
        columns: headers of a block; the first column holds names, the others numbers.
        rows: cells of each row, one per column.
    """

    def __init__(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self.title = title
        self.columns = list(columns)
        self.rows = [list(row) for row in rows]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        """Yield the table for the width of the console."""
        yield self.layout(options.max_width)

    def layout(self, width: int) -> Table:
        """Return the table for a terminal of ``width`` columns."""
        longest = max(cell_len(_cell(row[0]).plain) for row in [self.columns, *self.rows])
        num_blocks = min(MAX_BLOCKS, math.ceil(len(self.rows) / MAX_ROWS)) or 1
        while num_blocks > 1 and self._name_width(width, num_blocks) < min(longest, MIN_NAME_WIDTH):
            num_blocks -= 1
        name_width = min(longest, max(self._name_width(width, num_blocks), 1))
        height = math.ceil(len(self.rows) / num_blocks)
        table = _empty_table(self.title)
        for block in range(num_blocks):
            if block:
                table.add_column("", width=1)  # space between blocks
            _add_block(table, self.columns, self.rows, name_width)
        for i in range(height):
            cells: list[Text] = []
            for block in range(num_blocks):
                j = i + block * height
                row = self.rows[j] if j < len(self.rows) else [""] * len(self.columns)
                name = _cell(row[0])
                name.truncate(name_width, overflow="ellipsis")
                cells += [*([Text()] if block else []), name, *[_cell(cell) for cell in row[1:]]]
            table.add_row(*cells)
        return table

    def _name_width(self, width: int, num_blocks: int) -> int:
        """Return the space for the names of each block, which is negative if the numbers do not fit."""
        numbers = sum(size + 1 for size in _widths(self.columns, self.rows)[1:])
        return (width - 1 - 2 * (num_blocks - 1)) // num_blocks - numbers - 1


def _empty_table(title: str) -> Table:
    return Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD, padding=0)


def _add_block(
    table: Table, columns: Sequence[str], rows: Sequence[Sequence[str]], name_width: int | None
) -> None:
    """Add a column for names, and columns for numbers that are as wide as the longest number."""
    table.add_column(Text(columns[0]), width=name_width, no_wrap=True, overflow="ellipsis")
    for name, width in zip(columns[1:], _widths(columns, rows)[1:], strict=True):
        table.add_column(Text(name), justify="right", width=width, no_wrap=True)


def _widths(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(cell_len(cells[i]) for cells in [columns, *rows]) for i in range(len(columns))]


def _cell(text: str) -> Text:
    """Return one line that is not read as rich's markup; control characters of names are escaped."""
    return Text(
        "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text),
        no_wrap=True,
    )


def format_percent(value: float) -> str:
    """Format a rate between 0 and 1 in percent; NaN becomes a dash."""
    return "-" if math.isnan(value) else f"{100 * value:.1f}"
