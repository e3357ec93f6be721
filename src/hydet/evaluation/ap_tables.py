"""Average precision as tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich.table import Table

from .blocks import percent, table_in_blocks

__all__ = ["class_table", "summary_table"]

COLUMNS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR")


def summary_table(
    metrics: Mapping[str, float], tasks: Sequence[str], num_images: int, columns: Sequence[str] = COLUMNS
) -> Table:
    """One row a task.

    Args:
        metrics: ``<task>/<metric>``, between 0 and 1; shown in percent.
        tasks: such as ``["box", "mask"]``.
        num_images: for the title.
        columns: which metrics.
    """
    table = Table(title=f"Average precision in %, {num_images} images", title_justify="left")
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    for task in tasks:
        table.add_row(task, *[percent(metrics.get(f"{task}/{name}", math.nan)) for name in columns])
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
    rows = [
        [name, str(count), *[percent(values[i]) for values in per_class.values()]]
        for i, (name, count) in enumerate(zip(classes, counts, strict=True))
    ]
    return table_in_blocks("Average precision of each class in %", ["class", "objects", *per_class], rows)
