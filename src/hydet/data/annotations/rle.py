"""COCO's run-length codes: runs of zeros and ones by turns, down the columns of a bitmap."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["draw_code", "runs_of"]


def runs_of(counts: str | bytes) -> np.ndarray:
    """Runs of a compressed code, int64.

    A character holds five bits of a number, low ones first; from the fourth number on it is the difference to the last
    but one.

    Raises:
        ValueError: if this is no compressed code.
    """
    content = counts.encode() if isinstance(counts, str) else counts
    if not content:
        return np.zeros(0, dtype=np.int64)
    parts = np.frombuffer(content, dtype=np.uint8).astype(np.int64) - 48
    if parts.min() < 0 or parts.max() > 63:
        raise ValueError("counts hold characters that cannot be there")
    last = (parts & 32) == 0
    if not last[-1]:
        raise ValueError("counts end in the middle of a number")
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    if (ends - starts).max() > 11:
        raise ValueError("counts hold a number that is too large")
    shift = 5 * (np.arange(len(parts)) - np.repeat(starts, ends - starts + 1))
    values = np.add.reduceat((parts & 31) << shift, starts)
    values -= ((parts[ends] & 16) != 0) * (np.int64(2) << (shift[ends] + 4))
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def draw_code(code: Mapping[str, Any], mask: np.ndarray) -> None:
    """Set the pixels of a run-length code in ``mask``, ``(H, W)`` bool; the cost is that of the columns it touches.

    Raises:
        ValueError: if the code is not one of a bitmap of this size.
    """
    height, width = mask.shape
    counts = code["counts"]
    runs = runs_of(counts) if isinstance(counts, str | bytes) else np.asarray(counts, dtype=np.int64)
    if tuple(code["size"]) != mask.shape or runs.sum() != height * width or (runs < 0).any():
        raise ValueError(f"the run-length code is not one of a bitmap of {width} x {height} pixels")
    bounds = np.cumsum(runs)[:-1] if len(runs) % 2 else np.cumsum(runs)  # ones begin and end here, by turns
    if len(bounds) == 0 or bounds[-1] == bounds[0]:
        return
    left, right = int(bounds[0]) // height, -(-int(bounds[-1]) // height)
    edges = np.bincount(bounds - left * height, minlength=(right - left) * height + 1)[:-1] & 1
    columns = np.bitwise_xor.accumulate(edges.astype(np.uint8)).reshape(right - left, height)
    mask[:, left:right] |= columns.T.view(bool)
