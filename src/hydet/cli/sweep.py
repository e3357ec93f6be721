"""The table at the end of a sweep: a row a run, what was overridden and what came out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

__all__ = ["SweepTable", "print_finished", "read_runs"]

METRICS_FILE = "metrics.json"
_started: list[Path] = []


class SweepTable(Callback):
    """Notes where a sweep writes, so that its runs can be listed when it ends, however it ends."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        _started.append(Path(config.hydra.sweep.dir))


def print_finished() -> None:
    """Print the table of every sweep of this process and write it beside the runs as ``sweep.json``."""
    while _started:
        folder = _started.pop()
        runs = read_runs(folder)
        if not runs:
            continue
        (folder / "sweep.json").write_text(json.dumps(runs, indent=1))
        Console().print(table_of(runs, title=f"Sweep in {folder}"))


def read_runs(folder: Path) -> list[dict[str, Any]]:
    """The runs of a sweep, best first.

    Args:
        folder: the sweep's; each subfolder with ``.hydra/overrides.yaml`` is a run, and holds ``metrics.json`` if it
            reached its end.

    Returns:
        ``run`` (the subfolder), ``overrides`` (key to value) and ``metrics`` (name to value, and under ``metric`` the
        name of the one that counts; empty if it failed).
    """
    runs = []
    for file in sorted(folder.glob("*/.hydra/overrides.yaml")):
        run = file.parent.parent
        overrides = dict(str(o).lstrip("+").split("=", 1) for o in OmegaConf.load(file) if "=" in str(o))
        metrics_file = run / METRICS_FILE
        metrics = json.loads(metrics_file.read_text()) if metrics_file.exists() else {}
        runs.append({"run": run.name, "overrides": overrides, "metrics": metrics})
    return sorted(runs, key=_value, reverse=True)


def _value(run: dict[str, Any]) -> float:
    metrics = run["metrics"]
    return metrics.get(metrics.get("metric", "box/AP"), float("-inf"))


def table_of(runs: list[dict[str, Any]], *, title: str) -> Table:
    """Overrides that differ between runs, then the metrics that matter."""
    keys = sorted({k for r in runs for k in r["overrides"]})
    varying = [k for k in keys if len({r["overrides"].get(k) for r in runs}) > 1] or keys
    deciding = {r["metrics"]["metric"] for r in runs if "metric" in r["metrics"]}
    names = sorted({k for r in runs for k in r["metrics"] if k.endswith("/AP") or k in deciding})
    names += [k for k in ("val_loss/total", "seconds") if any(k in r["metrics"] for r in runs)]
    table = Table(title=title)
    table.add_column("run", justify="right")
    for key in varying:
        table.add_column(key)
    for name in names:
        table.add_column(name, justify="right")
    for r in runs:
        absent = "-" if r["metrics"] else "failed"
        numbers = [f"{r['metrics'][n]:.3f}" if n in r["metrics"] else absent for n in names]
        table.add_row(r["run"], *(str(r["overrides"].get(k, "")) for k in varying), *numbers)
    return table
