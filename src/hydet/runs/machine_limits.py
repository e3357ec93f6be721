"""Rates of a machine that bound the speed of a model: matrix products and memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

__all__ = ["MachineLimits", "measure_limits"]


@dataclass(frozen=True)
class MachineLimits:
    """Rates with the number of threads that torch uses.

    Attributes:
        flops: floating-point operations per second of a large matrix product.
        bytes: bytes per second of a large copy, reads and writes together.
    """

    flops: float
    bytes: float

    def share(self, flops: float, seconds: float) -> float:
        """Return the part of a duration that the operations take at the rate of the matrix product."""
        return flops / self.flops / seconds


def measure_limits(
    device: torch.device,
    *,
    dtype: torch.dtype = torch.float32,
    side: int = 2048,
    copied: int = 2**28,
    runs: int = 5,
) -> MachineLimits:
    """Measure the rates of a device, from the faster half of several runs.

    Args:
        device: CPU or GPU.
        dtype: of the matrices.
        side: rows and columns of the matrices.
        copied: bytes that a run copies, more than caches hold.
        runs: number of timed runs of each kind.
    """
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    product = _fastest(lambda: torch.mm(a, b, out=out), device, runs)
    source = torch.ones(copied, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = _fastest(lambda: target.copy_(source), device, runs)
    return MachineLimits(flops=2 * side**3 / product, bytes=2 * copied / copy)


def _fastest(action: Callable[[], object], device: torch.device, runs: int) -> float:
    """Return the median seconds of the faster half of the runs, after one that does not count."""
    seconds = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        action()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    ordered = sorted(seconds[1:])
    return statistics.median(ordered[: len(ordered) // 2 + 1])
