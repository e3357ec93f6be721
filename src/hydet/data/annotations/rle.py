"""COCO's run-length codes: alternating runs of zeros and ones in column order."""

from __future__ import annotations

from typing import TypedDict

import numpy as np

__all__ = ["RunLengthCode", "decode_runs", "draw_run_lengths"]


class RunLengthCode(TypedDict):
    """A mask in COCO's format.

    Keys:
        size: ``[height, width]`` of the mask in pixels.
        counts: lengths of the runs, zeros first; compressed to a string, or a list of integers.
    """

    size: list[int]
    counts: str | bytes | list[int]


def decode_runs(counts: str | bytes) -> np.ndarray:
    """Decompress the counts of a run-length code.

    Args:
        counts: characters with six bits each, offset by 48. The low five bits are part of a number, least significant
            group first; the sixth is set if the number continues. From the fourth number on, each is stored as the
            difference from the number two before it.

    Returns:
        ``(R,)`` int64 run lengths, zeros first.

    Raises:
        ValueError: if ``counts`` is not a compressed code.
    """
    content = counts.encode() if isinstance(counts, str) else counts
    if not content:
        return np.zeros(0, dtype=np.int64)
    groups = np.frombuffer(content, dtype=np.uint8).astype(np.int64) - 48
    if groups.min() < 0 or groups.max() > 63:
        raise ValueError("counts have invalid characters")
    is_last = (groups & 32) == 0
    if not is_last[-1]:
        raise ValueError("counts end in the middle of a number")
    ends = np.flatnonzero(is_last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    if (ends - starts).max() > 11:  # twelve groups of five bits are the most that an int64 holds
        raise ValueError("counts have a number that is too large")
    shift = 5 * (np.arange(len(groups)) - np.repeat(starts, ends - starts + 1))
    values = np.add.reduceat((groups & 31) << shift, starts)
    values -= ((groups[ends] & 16) != 0) * (np.int64(2) << (shift[ends] + 4))  # sign extension
    # Undo the differences; the first number and the odd ones start independent sums.
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def draw_run_lengths(code: RunLengthCode, mask: np.ndarray) -> None:
    """Set the pixels of a run-length code in a mask. The cost depends on the number of columns that the code covers.

    Args:
        code: compressed or uncompressed code.
        mask: ``(H, W)`` bool, changed in place.

    Raises:
        ValueError: if the code is broken or belongs to a mask of another size.
    """
    height, width = mask.shape
    counts = code["counts"]
    runs = decode_runs(counts) if isinstance(counts, str | bytes) else np.asarray(counts, dtype=np.int64)
    if tuple(code["size"]) != mask.shape or runs.sum() != height * width or (runs < 0).any():
        raise ValueError(f"the run-length code does not match a mask of {width} x {height} pixels")
    # Positions where runs of ones start and end, alternating, in column order.
    bounds = np.cumsum(runs)[:-1] if len(runs) % 2 else np.cumsum(runs)
    if len(bounds) == 0 or bounds[-1] == bounds[0]:
        return
    left, right = int(bounds[0]) // height, -(-int(bounds[-1]) // height)
    edges = np.bincount(bounds - left * height, minlength=(right - left) * height + 1)[:-1] & 1
    columns = np.bitwise_xor.accumulate(edges.astype(np.uint8)).reshape(right - left, height)
    mask[:, left:right] |= columns.T.view(bool)
