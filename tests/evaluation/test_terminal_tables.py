import math

import pytest
from rich.console import Console

from hydet.evaluation.terminal_tables import format_percent, table_in_blocks


@pytest.mark.parametrize(("num_rows", "num_blocks"), [(0, 1), (1, 1), (20, 1), (21, 2), (45, 3), (200, 3)])
def test_rows_fill_blocks_column_by_column(num_rows, num_blocks):
    rows = [[f"name{i}", str(i)] for i in range(num_rows)]
    table = table_in_blocks("title", ["name", "value"], rows)
    assert len(table.columns) == 2 * num_blocks
    height = math.ceil(num_rows / num_blocks)
    assert table.row_count == height
    cells = [cell for block in range(num_blocks) for cell in table.columns[2 * block].cells]
    assert [str(cell) for cell in cells if str(cell)] == [name for name, _ in rows]


def test_tables_can_be_printed(capsys):
    Console(width=80).print(table_in_blocks("Classes in %", ["class", "AP"], [["cat", "50.0"]]))
    assert "cat" in capsys.readouterr().out


def test_names_are_not_read_as_markup(capsys):
    names = ["car [/large]", "[bold]x", "\\[a]"]
    Console(width=80).print(
        table_in_blocks("Classes in %", ["class", "AP"], [[name, "50.0"] for name in names])
    )
    printed = capsys.readouterr().out
    assert all(name in printed for name in names)


def test_percent():
    assert format_percent(0.1234) == "12.3" and format_percent(math.nan) == "-"
