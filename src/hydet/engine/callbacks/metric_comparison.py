"""Which of two metrics is the better one."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping

__all__ = ["check_mode", "is_better", "read_metric"]

MODES = ("auto", "max", "min")


def check_mode(mode: str) -> str:
    """``mode``, if there is such a one."""
    if mode not in MODES:
        raise ValueError(f"mode must be one of {list(MODES)}, got {mode!r}")
    return mode


def read_metric(metrics: Mapping[str, float], name: str) -> float:
    """The metric called ``name``.

    Raises:
        ValueError: if the evaluation has no such metric; names the nearest.
    """
    if name not in metrics:
        near = difflib.get_close_matches(name, metrics, n=1, cutoff=0.4)
        hint = f"nearest: {near[0]!r}" if near else f"there are: {', '.join(sorted(metrics)) or 'none'}"
        raise ValueError(f"the evaluation gives no metric {name!r}; {hint}")
    return metrics[name]


def is_better(
    name: str, new: float, old: float | None, *, mode: str = "auto", min_delta: float = 0.0
) -> bool:
    """Whether ``new`` improves on ``old`` by more than ``min_delta``; NaN never does, and any number on ``None``.

    Args:
        name: of the metric; under ``"auto"`` less is better where it speaks of a loss.
        new: value to judge.
        old: best so far.
        mode: ``"max"``, ``"min"`` or ``"auto"``.
        min_delta: smaller improvements do not count.
    """
    if math.isnan(new):
        return False
    if old is None or math.isnan(old):
        return True
    less_is_better = mode == "min" or (mode == "auto" and "loss" in name)
    return new < old - min_delta if less_is_better else new > old + min_delta
