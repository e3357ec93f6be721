"""Random streams: set from a seed, taken out, put back."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

__all__ = ["random_state", "seed_everything", "set_random_state"]


def seed_everything(seed: int, *, rank: int = 0, deterministic: bool = False) -> None:
    """Seed Python, NumPy and torch.

    Args:
        seed: not negative.
        rank: processes of one run draw differently.
        deterministic: also make torch choose deterministic algorithms, which may be slower.

    Raises:
        ValueError: for a negative seed.
    """
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    own = (seed + 7919 * rank) % 2**32
    random.seed(own)
    np.random.seed(own)
    torch.manual_seed(own)
    if deterministic:
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False


def random_state(device: torch.device) -> dict[str, Any]:
    """The random streams of this process, as tensors and numbers.

    Args:
        device: whose stream to include beside the CPU's.
    """
    numpy_state: Any = np.random.get_state(legacy=True)
    name, keys, position, has_gauss, gauss = numpy_state
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": [
            str(name),
            torch.from_numpy(keys.astype(np.int64)),
            int(position),
            int(has_gauss),
            float(gauss),
        ],
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Continue where ``random_state`` was called; a stream that ``state`` lacks stays as it is."""
    torch.set_rng_state(state["torch"])
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
