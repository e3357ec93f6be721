"""Average precision as tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich.table import Table

__all__ = ["class_table", "summary_table"]

ROWS = 20
COLUMNS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR")


def summary_table(metrics: Mapping[str, float], tasks: Sequence[str], num_images: int) -> Table:
    """One row a task.

    Args:
        metrics: ``<task>/<metric>``, between 0 and 1; shown in percent.
        tasks: such as ``["box", "mask"]``.
        num_images: for the title.
    """
    table = Table(title=f"Average precision in %, {num_images} images", title_justify="left")
    table.add_column("")
    for name in COLUMNS:
        table.add_column(name, justify="right")
    for task in tasks:
        table.add_row(task, *[_percent(metrics.get(f"{task}/{name}", math.nan)) for name in COLUMNS])
    return table


def class_table(
    classes: Sequence[str], per_class: Mapping[str, Sequence[float]], counts: Sequence[int]
) -> Table:
    """One row a class, in as many blocks side by side as many classes need.

    Args:
        classes: their names.
        per_class: AP between 0 and 1 of each class, for each task.
        counts: ground-truth objects of each class.
    """
    blocks = min(3, math.ceil(len(classes) / ROWS)) or 1
    height = math.ceil(len(classes) / blocks)
    table = Table(title="Average precision of each class in %", title_justify="left")
    for _ in range(blocks):
        table.add_column("class", overflow="fold")
        table.add_column("objects", justify="right")
        for task in per_class:
            table.add_column(task, justify="right")
    rows = [
        [name, str(count), *[_percent(values[i]) for values in per_class.values()]]
        for i, (name, count) in enumerate(zip(classes, counts, strict=True))
    ]
    empty = [""] * (2 + len(per_class))
    for i in range(height):
        parts = [rows[i + b * height] if i + b * height < len(rows) else empty for b in range(blocks)]
        table.add_row(*[cell for part in parts for cell in part])
    return table


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"
