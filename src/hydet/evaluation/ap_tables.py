"""Tables of average precision for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich.table import Table

from .terminal_tables import BlockTable, compact_table, format_percent

__all__ = ["COLUMNS", "class_table", "summary_table"]

COLUMNS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR")


def summary_table(
    metrics: Mapping[str, float], tasks: Sequence[str], num_images: int, columns: Sequence[str] = COLUMNS
) -> Table:
    """Build a table of average precision with one row per task.

    Args:
        metrics: ``<task>/<metric>``, between 0 and 1; shown in percent.
        tasks: names of the rows, such as ``["box", "mask"]``.
        num_images: number of images, for the title.
        columns: names of the metrics.
    """
    rows = [
        [task, *[format_percent(metrics.get(f"{task}/{name}", math.nan)) for name in columns]]
        for task in tasks
    ]
    return compact_table(f"Average precision in %, {num_images} images", ["", *columns], rows)


def class_table(
    classes: Sequence[str], per_class: Mapping[str, Sequence[float]], counts: Sequence[int]
) -> BlockTable:
    """Build a table of average precision with one row per class.

    Args:
        classes: names of the classes.
        per_class: task -> AP of each class, between 0 and 1.
        counts: number of ground-truth objects per class.
    """
    rows = [
        [name, str(count), *[format_percent(values[i]) for values in per_class.values()]]
        for i, (name, count) in enumerate(zip(classes, counts, strict=True))
    ]
    return BlockTable("Average precision per class in %", ["class", "objects", *per_class], rows)
