"""Long tables for the terminal, laid out in blocks side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.table import Table

__all__ = ["percent", "table_in_blocks"]

ROWS = 20


def table_in_blocks(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table with as many blocks side by side, up to three, as many rows need.

    Args:
        title: above the table.
        columns: the heads of one block; the first column holds names and is aligned to the left.
        rows: cells of each row, as many as ``columns``.
    """
    blocks = min(3, math.ceil(len(rows) / ROWS)) or 1
    height = math.ceil(len(rows) / blocks)
    table = Table(title=title, title_justify="left")
    for _ in range(blocks):
        table.add_column(columns[0], overflow="fold")
        for name in columns[1:]:
            table.add_column(name, justify="right")
    empty = [""] * len(columns)
    for i in range(height):
        parts = [rows[i + b * height] if i + b * height < len(rows) else empty for b in range(blocks)]
        table.add_row(*[cell for part in parts for cell in part])
    return table


def percent(value: float) -> str:
    """A rate between 0 and 1 for a cell; a dash for NaN."""
    return "-" if math.isnan(value) else f"{100 * value:.1f}"
