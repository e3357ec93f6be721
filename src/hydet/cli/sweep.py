"""The table at the end of a sweep: one row per run, with its overrides and its metrics."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import Any, TypedDict

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hydet.engine.callbacks.metric_comparison import is_better

from .metrics_file import read_metrics

__all__ = ["SweepRun", "SweepTable", "print_finished", "read_runs", "record_failure"]

_FAILURE_FILE = "failure.txt"

_started: list[Path] = []


class SweepRun(TypedDict):
    """One run of a sweep.

    Keys:
        run: path of its folder below that of the sweep, with slashes.
        overrides: key to value.
        metrics: name to value, and under ``metric`` the name of the main metric; empty if the run failed.
        failure: why the run failed, or None.
    """

    run: str
    overrides: dict[str, str]
    metrics: dict[str, Any]
    failure: str | None


class SweepTable(Callback):
    """Records the folder of a sweep, so that its runs can be listed at the end, even after a failure."""

    def on_multirun_start(self, config: DictConfig, **kwargs: object) -> None:
        """Record the folder; Hydra calls this before the first run."""
        _started.append(Path(config.hydra.sweep.dir))


def print_finished() -> None:
    """Print the table of every sweep of this process, and write it next to the runs as ``sweep.json``."""
    while _started:
        folder = _started.pop()
        runs = read_runs(folder)
        if not runs:
            continue
        (folder / "sweep.json").write_text(json.dumps(runs, indent=1), encoding="utf-8")
        console = Console()
        console.print(Text(f"Sweep in {folder}"), soft_wrap=True)  # a title would break it at the width
        console.print(table_of(runs))
        for run in runs:
            if run["failure"] is not None:
                console.print(Text(f"run {run['run']} failed: {run['failure']}"), soft_wrap=True)


def read_runs(folder: Path) -> list[SweepRun]:
    """Return the runs of a sweep, best first.

    Args:
        folder: folder of the sweep. Each folder below it with ``.hydra/overrides.yaml`` is a run, with ``metrics.json``
            if the run reached its end.
    """
    runs: list[SweepRun] = []
    for file in sorted(folder.glob("**/.hydra/overrides.yaml")):
        run = file.parent.parent
        if run == folder:
            continue
        overrides = dict(str(o).lstrip("+").split("=", 1) for o in OmegaConf.load(file) if "=" in str(o))
        metrics = read_metrics(run)
        failure = run / _FAILURE_FILE
        reason = failure.read_text(encoding="utf-8") if failure.exists() and not metrics else None
        name = run.relative_to(folder).as_posix()
        runs.append({"run": name, "overrides": overrides, "metrics": metrics, "failure": reason})
    return sorted(runs, key=_rank)


def record_failure(folder: Path, reason: str) -> None:
    """Write why a run failed into its folder, for the table at the end of the sweep."""
    with contextlib.suppress(OSError):  # the table then says only that the run failed
        (folder / _FAILURE_FILE).write_text(reason, encoding="utf-8")


def _rank(run: SweepRun) -> float:
    """Return a number that is smaller for better runs; runs without the metric come last."""
    metrics = run["metrics"]
    name = metrics.get("metric", "box/AP")
    if name not in metrics:
        return math.inf
    value = float(metrics[name])
    return value if is_better(name, 0.0, 1.0) else -value


def table_of(runs: list[SweepRun]) -> Table:
    """Return a table with the overrides that differ between runs, and the main metrics."""
    keys = sorted({k for r in runs for k in r["overrides"]})
    varying = [k for k in keys if len({r["overrides"].get(k) for r in runs}) > 1] or keys
    deciding = {r["metrics"]["metric"] for r in runs if "metric" in r["metrics"]}
    names = sorted({k for r in runs for k in r["metrics"] if k.endswith("/AP") or k in deciding})
    names += [k for k in ("val_loss/total", "seconds") if any(k in r["metrics"] for r in runs)]
    table = Table()
    table.add_column("run", justify="right", overflow="fold")
    for key in varying:
        table.add_column(Text(key), overflow="fold")
    for name in names:
        table.add_column(Text(name, overflow="fold"), justify="right", min_width=len("failed"))
    for r in runs:
        absent = "-" if r["metrics"] else "failed"
        numbers = [f"{r['metrics'][n]:.3f}" if n in r["metrics"] else absent for n in names]
        overrides = [Text(str(r["overrides"].get(k, ""))) for k in varying]
        table.add_row(Text(r["run"]), *overrides, *numbers)
    return table
