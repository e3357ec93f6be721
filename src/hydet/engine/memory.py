"""Peak memory of a run."""

from __future__ import annotations

import sys

import torch

try:
    import resource
except ImportError:  # Windows has no such module
    resource = None  # type: ignore[assignment]

__all__ = ["peak_memory_gb"]


def peak_memory_gb(device: torch.device) -> float | None:
    """Return the largest amount of memory used so far, in GiB.

    Args:
        device: a CUDA device for memory that torch allocated there; any other device for memory of this process.

    Returns:
        None where the system does not report the memory of a process.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    if resource is None:
        return None
    bytes_per_unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * bytes_per_unit / 2**30
