"""Tables for the terminal; long ones have several blocks side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

__all__ = ["format_percent", "table_in_blocks"]

MAX_ROWS, MAX_BLOCKS = 20, 3


def table_in_blocks(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Lay out rows in up to three blocks side by side, so that a table of 80 classes fits on a screen.

    Args:
        title: title above the table.
        columns: headers of a block; the first column holds names and is left-aligned.
        rows: cells of each row, one per column.
    """
    num_blocks = min(MAX_BLOCKS, math.ceil(len(rows) / MAX_ROWS)) or 1
    height = math.ceil(len(rows) / num_blocks)
    table = Table(title=title, title_justify="left")
    for _ in range(num_blocks):
        table.add_column(columns[0], overflow="fold")
        for name in columns[1:]:
            table.add_column(name, justify="right")
    empty = [""] * len(columns)
    for i in range(height):
        indices = range(i, i + num_blocks * height, height)
        blocks = [rows[j] if j < len(rows) else empty for j in indices]
        # Text, because names may look like rich's markup.
        table.add_row(*[Text(cell) for block in blocks for cell in block])
    return table


def format_percent(value: float) -> str:
    """Format a rate between 0 and 1 in percent; NaN becomes a dash."""
    return "-" if math.isnan(value) else f"{100 * value:.1f}"
