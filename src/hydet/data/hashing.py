"""Random numbers that depend only on a seed and positions, not on the order of calls or the number of workers.

Source: Steele et al. 2014, "Fast splittable pseudorandom number generators" (the mixing function of splitmix64).
"""

from __future__ import annotations

import numpy as np

__all__ = ["derive_seed", "hash_to_unit_interval"]

_UINT64_MASK = (1 << 64) - 1
_GOLDEN_GAMMA = 0x9E3779B97F4A7C15  # odd, close to 2**64 divided by the golden ratio
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def derive_seed(seed: int, *positions: int) -> int:
    """Derive a seed from another seed and positions, such as an epoch and an index in it.

    Args:
        seed: any integer.
        positions: integers, whose order matters.

    Returns:
        A seed in [0, 2**63). Equal arguments give equal seeds; different arguments give independent ones, up to
        collisions of the hash.
    """
    value = _mix(seed & _UINT64_MASK)
    for position in positions:
        value = _mix((value ^ (position & _UINT64_MASK)) + _GOLDEN_GAMMA & _UINT64_MASK)
    return value >> 1


def _mix(value: int) -> int:
    value = (value + _GOLDEN_GAMMA) & _UINT64_MASK
    value = ((value ^ (value >> 30)) * _MULTIPLIERS[0]) & _UINT64_MASK
    value = ((value ^ (value >> 27)) * _MULTIPLIERS[1]) & _UINT64_MASK
    return value ^ (value >> 31)


def hash_to_unit_interval(seed: int, positions: np.ndarray) -> np.ndarray:
    """Hash a seed and positions into random numbers.

    Args:
        seed: any integer.
        positions: ``(N,)`` integers.

    Returns:
        ``(N,)`` float64 in [0, 1). Each depends on the seed and its position only.
    """
    with np.errstate(over="ignore"):
        value = np.asarray(positions).astype(np.uint64) ^ np.uint64(_mix(seed & _UINT64_MASK))
        value += np.uint64(_GOLDEN_GAMMA)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(_MULTIPLIERS[0])
        value = (value ^ (value >> np.uint64(27))) * np.uint64(_MULTIPLIERS[1])
        value ^= value >> np.uint64(31)
    # A float64 has 53 bits of precision.
    return (value >> np.uint64(11)).astype(np.float64) / (1 << 53)
