"""Seed, read and restore the random number generators of a process."""

from __future__ import annotations

import random
from typing import Any, NotRequired, TypedDict

import numpy as np
import torch
from torch import Tensor

__all__ = ["RandomState", "random_state", "seed_everything", "set_random_state"]


class RandomState(TypedDict):
    """States of the random number generators of one process, as checkpoints store them.

    Keys:
        torch: state of torch's CPU generator.
        python: state of ``random``: version, words, cached normal value.
        numpy: state of ``numpy.random``: name, words, position, two values of the cached normal value.
        cuda: state of the generator of one CUDA device.
    """

    torch: Tensor
    python: tuple[Any, ...]
    numpy: list[Any]
    cuda: NotRequired[Tensor]


def seed_everything(seed: int, *, rank: int = 0, deterministic: bool = False) -> None:
    """Seed Python, NumPy and torch.

    Args:
        seed: seed of the run, not negative.
        rank: rank of the process; processes of one run draw different numbers.
        deterministic: True also makes torch choose deterministic algorithms, which may be slower.

    Raises:
        ValueError: if the seed is negative.
    """
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    process_seed = (seed + 7919 * rank) % 2**32  # a prime, so that nearby seeds and ranks do not coincide
    random.seed(process_seed)
    np.random.seed(process_seed)
    torch.manual_seed(process_seed)
    if deterministic:
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False


def random_state(device: torch.device) -> RandomState:
    """Return the states of this process's random number generators.

    Args:
        device: device whose generator to include; the CPU's generator is always included.
    """
    numpy_state: Any = np.random.get_state(legacy=True)
    name, words, position, has_gauss, gauss = numpy_state
    state: RandomState = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": [
            str(name),
            torch.from_numpy(words.astype(np.int64)),  # a NumPy array would need pickle
            int(position),
            int(has_gauss),
            float(gauss),
        ],
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: RandomState, device: torch.device) -> None:
    """Restore states that ``random_state`` returned; a generator without a state keeps its own."""
    torch.set_rng_state(state["torch"])
    version, words, cached_normal = state["python"]
    random.setstate((version, tuple(words), cached_normal))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
