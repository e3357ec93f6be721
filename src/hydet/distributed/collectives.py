"""Exchange small Python values between processes; a single process gets its own value back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from .process_group import control_group, is_main_process, world_size

__all__ = [
    "all_gather",
    "any_process",
    "broadcast_from_main",
    "compute_on_main",
    "gather_on_main",
    "mean_over_processes",
    "sum_over_processes",
    "sum_tensor_over_processes",
]

T = TypeVar("T")
R = TypeVar("R")


def all_gather(value: T) -> list[T]:
    """Return the values of all processes in order of rank; values must pickle."""
    if world_size() == 1:
        return [value]
    values: list[T] = [value] * world_size()
    dist.all_gather_object(values, value, group=control_group())
    return values


def gather_on_main(value: T) -> list[T]:
    """Return the values of all processes in order of rank on the main process, and an empty list elsewhere."""
    if world_size() == 1:
        return [value]
    values: list[T] | None = [value] * world_size() if is_main_process() else None
    dist.gather_object(value, values, dst=0, group=control_group())
    return values or []


def broadcast_from_main(value: T) -> T:
    """Return the main process's value on every process."""
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0, group=control_group())
    return values[0]


def compute_on_main(value: T, compute: Callable[[list[T]], R]) -> R:
    """Gather values on the main process, run ``compute`` on them there, and return its result on every process.

    Args:
        value: value of this process; must pickle.
        compute: function of the values in order of rank. Its result must pickle.

    Raises:
        ValueError: on every process, if ``compute`` raises one.
    """
    values = gather_on_main(value)
    result: R | ValueError | None = None
    if is_main_process():
        try:
            result = compute(values)
        except ValueError as error:
            result = error  # sent instead of the result, because the other processes wait for the broadcast
    result = broadcast_from_main(result)
    if isinstance(result, ValueError):
        raise result
    return result  # type: ignore[return-value]  # None only if compute returned it


def any_process(flag: bool) -> bool:
    """Return True on every process if ``flag`` is True on at least one."""
    if world_size() == 1:
        return flag
    result = torch.tensor(int(flag))
    dist.all_reduce(result, op=dist.ReduceOp.MAX, group=control_group())
    return bool(result)


def mean_over_processes(values: Mapping[str, float]) -> dict[str, float]:
    """Return the mean of each key over the processes that have it."""
    if world_size() == 1:
        return dict(values)
    collected: dict[str, list[float]] = {}
    for part in all_gather(values):
        for key, value in part.items():
            collected.setdefault(key, []).append(value)
    return {key: sum(numbers) / len(numbers) for key, numbers in collected.items()}


def sum_over_processes(values: Mapping[str, float]) -> dict[str, float]:
    """Return the sum of each key over the processes that have it."""
    total: dict[str, float] = {}
    for part in all_gather(values):
        for key, value in part.items():
            total[key] = total.get(key, 0.0) + value
    return total


def sum_tensor_over_processes(value: Tensor) -> Tensor:
    """Return the sum of a tensor over processes, on its device and without waiting for it; no gradients flow through.

    All processes must call this function, with tensors of one shape.
    """
    if world_size() == 1:
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total
