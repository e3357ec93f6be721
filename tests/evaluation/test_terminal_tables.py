import io
import math

import pytest
from rich.cells import cell_len
from rich.console import Console

from hydet.evaluation.terminal_tables import BlockTable, compact_table, format_percent

COLUMNS = ["class", "objects", "box", "mask"]


def print_table(table, width):
    console = Console(width=width, file=io.StringIO())
    console.print(table)
    return console.file.getvalue().splitlines()


def make_rows(names):
    return [[name, str(10000 + i), f"{i / 10:.1f}", "100.0"] for i, name in enumerate(names)]


@pytest.mark.parametrize(("num_rows", "num_blocks"), [(0, 1), (1, 1), (20, 1), (21, 2), (45, 3), (200, 3)])
def test_rows_fill_blocks_column_by_column(num_rows, num_blocks):
    rows = [[f"name{i}", str(i)] for i in range(num_rows)]
    table = BlockTable("title", ["name", "value"], rows).layout(120)
    assert len(table.columns) == 3 * num_blocks - 1  # with one column of space between two blocks
    assert table.row_count == math.ceil(num_rows / num_blocks)
    cells = [cell for block in range(num_blocks) for cell in table.columns[3 * block].cells]
    assert [str(cell) for cell in cells if str(cell)] == [name for name, _ in rows]


@pytest.mark.parametrize("width", [60, 80, 100, 200])
@pytest.mark.parametrize("names", [[f"class {i}" for i in range(80)], [f"{i}: a long name of a class" for i in range(80)],
                                   ["自転車" * 5 + str(i) for i in range(80)]])  # fmt: skip
def test_80_classes_have_one_line_each_and_every_number_whole(width, names):
    rows = make_rows(names)
    lines = print_table(BlockTable("Classes in %", COLUMNS, rows), width)
    assert max(cell_len(line) for line in lines) <= width
    words = [word for line in lines for word in line.split()]
    for row in rows:
        assert row[1] in words
    num_blocks = lines[2].split().count("objects")
    assert words.count("100.0") == 80 and len(lines) <= 5 + math.ceil(80 / num_blocks)


def test_80_names_of_coco_are_whole_in_two_blocks_at_80_columns():
    names = ["baseball glove", "baseball bat", "traffic light"] + [f"class {i}" for i in range(77)]
    lines = print_table(BlockTable("Classes in %", COLUMNS, make_rows(names)), 80)
    assert len(lines) <= 45 and "baseball glove" in lines[4] and "baseball bat" in lines[5]


def test_long_names_end_with_an_ellipsis():
    lines = print_table(BlockTable("Classes in %", COLUMNS, make_rows(["a" * 300, "b"])), 80)
    assert any("aaa… " in line and "10000" in line and "100.0" in line for line in lines)


def test_names_are_neither_markup_nor_several_lines():
    names = ["car [/large]", "[bold]x", "\\[a]", "???", "${price}", "two\nlines", "\x1b[31mred"]
    lines = print_table(BlockTable("Classes in %", ["class", "AP"], [[name, "50.0"] for name in names]), 80)
    printed = "\n".join(lines)
    assert all(name in printed for name in names[:5])
    assert "two\\nlines" in printed and "\\x1b[31mred" in printed and "\x1b" not in printed


def test_numbers_of_a_wide_summary_fit_into_80_columns():
    names = ["AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf", "AR"]
    lines = print_table(compact_table("title", ["", *names], [["boundary", *["100.0"] * 10]]), 80)
    assert lines[-2].split() == ["boundary", *["100.0"] * 10]


def test_percent():
    assert format_percent(0.1234) == "12.3" and format_percent(math.nan) == "-"
