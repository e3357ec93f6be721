"""Random numbers that depend on nothing but a seed and a position."""

from __future__ import annotations

import numpy as np

__all__ = ["hashed", "uniform"]

_MASK = (1 << 64) - 1


def hashed(seed: int, *positions: int) -> int:
    """A number below 2**63 that looks random, for these arguments always the same one.

    Source: Steele et al. 2014, "Fast splittable pseudorandom number generators" (the mixing of splitmix64).
    """
    value = _mixed(seed & _MASK)
    for position in positions:
        value = _mixed((value ^ (position & _MASK)) + 0x9E3779B97F4A7C15 & _MASK)
    return value >> 1


def _mixed(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def uniform(seed: int, positions: np.ndarray) -> np.ndarray:
    """``float64`` in [0, 1), one for each of many positions."""
    with np.errstate(over="ignore"):
        value = np.asarray(positions).astype(np.uint64) ^ np.uint64(_mixed(seed & _MASK))
        value += np.uint64(0x9E3779B97F4A7C15)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        value ^= value >> np.uint64(31)
    return (value >> np.uint64(11)).astype(np.float64) / (1 << 53)
