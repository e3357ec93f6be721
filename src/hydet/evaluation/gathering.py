"""What evaluators need of torch.distributed, harmless without it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist

__all__ = ["broadcast_from_main", "computed_on_main", "gather_on_main", "is_main", "summed_over_processes"]

T = TypeVar("T")


def _active() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def is_main() -> bool:
    """Whether this is the process that computes and prints."""
    return not _active() or dist.get_rank() == 0


def gather_on_main(value: Any) -> list[Any]:
    """The value of every process in order of rank, on the main process; an empty list on the others."""
    if not _active():
        return [value]
    values: list[Any] | None = [None] * dist.get_world_size() if is_main() else None
    dist.gather_object(value, values, dst=0)
    return values or []


def broadcast_from_main(value: Any) -> Any:
    """The main process's value, everywhere."""
    if not _active():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def computed_on_main(value: Any, compute: Callable[[list[Any]], T]) -> T:
    """What ``compute`` makes of the values of all processes, everywhere; it runs on the main process.

    Raises:
        ValueError: on every process, if ``compute`` does.
    """
    parts = gather_on_main(value)
    outcome: T | ValueError | None = None
    if is_main():
        try:
            outcome = compute(parts)
        except ValueError as error:  # the other processes wait: they must hear of it
            outcome = error
    outcome = broadcast_from_main(outcome)
    if isinstance(outcome, ValueError):
        raise outcome
    return outcome  # type: ignore[return-value]


def summed_over_processes(values: dict[str, float]) -> dict[str, float]:
    """Key-wise sums; a process may lack keys that others have."""
    if not _active():
        return values
    everywhere: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everywhere, values)
    total: dict[str, float] = {}
    for part in everywhere:
        for key, value in part.items():
            total[key] = total.get(key, 0.0) + value
    return total


def cuda_devices() -> list[int]:
    """The CUDA devices whose random stream this process may use."""
    return [torch.cuda.current_device()] if torch.cuda.is_available() and torch.cuda.is_initialized() else []
