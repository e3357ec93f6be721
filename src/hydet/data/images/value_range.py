"""Conversion of images with more than 8 bits per channel to 8 bits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

__all__ = ["ValueRange", "check_value_range", "to_8_bits"]

# Values that become 0 and 255: a rule, or the two values.
ValueRange = Literal["auto", "full", "minmax"] | Sequence[float]

_SENSOR_BITS = (8, 10, 12, 14, 16, 24, 32)
_ROWS_AT_ONCE = 256  # bounds the memory of the conversion, which works in float64


def check_value_range(value_range: ValueRange) -> None:
    """Check a setting of :func:`to_8_bits`.

    Raises:
        ValueError: if it is neither a rule nor two finite numbers in ascending order.
    """
    if value_range in ("auto", "full", "minmax"):
        return
    if isinstance(value_range, Sequence) and not isinstance(value_range, str):
        limits = [float(v) for v in value_range if isinstance(v, int | float) and math.isfinite(v)]
        if len(value_range) == len(limits) == 2 and limits[0] < limits[1]:
            return
    raise ValueError(
        f'value_range must be "auto", "full", "minmax" or two numbers [low, high], got {value_range!r}'
    )


def to_8_bits(values: np.ndarray, value_range: ValueRange) -> np.ndarray:
    """Scale the values of an image linearly to 0 ... 255.

    Args:
        values: integers or floats of any shape; the first axis is that of the rows.
        value_range: the values that become 0 and 255; values outside are clipped.

            - ``"auto"``: for integers 0 and the largest value of the smallest usual bit depth (8, 10, 12, 14 or 16 bits)
              that holds all values of the image; for floats 0 and 1, or 0 and 255, whichever holds all values. If values
              are negative or even larger, the smallest and the largest value of the image.
            - ``"full"``: 0 and the largest value of the type, such as 65535; 0 and 1 for floats.
            - ``"minmax"``: the smallest and the largest value of the image.
            - ``[low, high]``: these values, the same for all images.

    Returns:
        uint8 values in the shape of ``values``; NaN becomes 0.
    """
    low, high = _limits(values, value_range)
    if values.dtype == np.uint16:  # the usual case; a table is faster than arithmetic
        table: np.ndarray = _scale(np.arange(2**16), low, high)
        return np.take(table, values)
    result = np.empty(values.shape, dtype=np.uint8)
    for start in range(0, len(values), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        result[rows] = _scale(values[rows], low, high)
    return result


def _scale(values: np.ndarray, low: float, high: float) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):  # infinite values, and floats of any size
        fractions = (values.astype(np.float64) - low) / (high - low or 1.0)
    scaled: np.ndarray = np.rint(255 * np.nan_to_num(fractions.clip(0, 1))).astype(np.uint8)
    return scaled


def _limits(values: np.ndarray, value_range: ValueRange) -> tuple[float, float]:
    """Return the values that become 0 and 255."""
    if not isinstance(value_range, str):
        return float(value_range[0]), float(value_range[1])
    is_float = np.issubdtype(values.dtype, np.floating)
    if value_range == "full":
        return (0.0, 1.0) if is_float else (0.0, float(np.iinfo(values.dtype).max))
    finite = values[np.isfinite(values)] if is_float else values
    if finite.size == 0:
        return 0.0, 1.0
    smallest, largest = float(finite.min()), float(finite.max())
    if value_range == "auto" and smallest >= 0:
        usual = (1.0, 255.0) if is_float else tuple(2.0**bits - 1 for bits in _SENSOR_BITS)
        for high in usual:
            if largest <= high:
                return 0.0, high
    return smallest, largest
