"""``metrics.json``: what a run measured, for the table of a sweep and for other programs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydet.files import write_atomically

__all__ = ["METRICS_FILE", "read_metrics", "write_metrics"]

METRICS_FILE = "metrics.json"


def write_metrics(
    folder: Path,
    metrics: Mapping[str, float],
    *,
    main_metric: str,
    notes: Sequence[str] = (),
    **details: float,
) -> Path:
    """Write the metrics of a run.

    Args:
        folder: output folder of the run.
        metrics: metrics by name. NaN and infinity, which JSON lacks, are left out.
        main_metric: name of the metric by which runs are compared, stored under ``metric``.
        notes: lines about the ground truth that the metrics are on, stored under ``ground_truth`` if there are any.
        details: other numbers, such as ``seconds``.

    Returns:
        Path of the file.
    """
    finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
    path = folder / METRICS_FILE
    notes_entry = {"ground_truth": list(notes)} if notes else {}
    content = {**finite, "metric": main_metric, **details, **notes_entry}
    write_atomically(path, json.dumps(content, indent=1))
    return path


def read_metrics(folder: Path) -> dict[str, Any]:
    """Return the content of the file in ``folder``, or an empty dict if the run wrote none."""
    path = folder / METRICS_FILE
    if not path.exists():
        return {}
    metrics: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return metrics
