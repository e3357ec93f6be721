"""Compare the values of a metric."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Literal, TypeAlias, get_args

__all__ = ["Mode", "check_mode", "is_better", "read_metric"]

Mode: TypeAlias = Literal["auto", "max", "min"]


def check_mode(mode: Mode) -> Mode:
    """Return ``mode`` if it is a valid direction of comparison.

    Raises:
        ValueError: if it is not.
    """
    if mode not in get_args(Mode):
        raise ValueError(f"mode must be one of {list(get_args(Mode))}, got {mode!r}")
    return mode


def read_metric(metrics: Mapping[str, float], name: str) -> float:
    """Return the metric called ``name``.

    Raises:
        ValueError: if the evaluation has no such metric; the message names the nearest.
    """
    if name not in metrics:
        nearest = difflib.get_close_matches(name, metrics, n=1, cutoff=0.4)
        hint = f"nearest: {nearest[0]!r}" if nearest else f"available: {', '.join(sorted(metrics)) or 'none'}"
        raise ValueError(f"the evaluation has no metric {name!r}; {hint}")
    return metrics[name]


def is_better(
    name: str, new: float, old: float | None, *, mode: Mode = "auto", min_delta: float = 0.0
) -> bool:
    """Return True if ``new`` improves on ``old`` by more than ``min_delta``.

    NaN is never better, and any number is better than no value or NaN.

    Args:
        name: name of the metric; under ``"auto"``, smaller values are better if it contains ``loss``.
        new: value to compare.
        old: best value so far.
        mode: ``"max"``, ``"min"`` or ``"auto"``.
        min_delta: smallest change that counts as an improvement.
    """
    if math.isnan(new):
        return False
    if old is None or math.isnan(old):
        return True
    smaller_is_better = mode == "min" or (mode == "auto" and "loss" in name)
    return new < old - min_delta if smaller_is_better else new > old + min_delta
