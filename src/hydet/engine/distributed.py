"""Several processes under torchrun: who am I, and what do the others say.

Every function works without torch.distributed, as the only process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist

from .devices import select_device

__all__ = [
    "all_gather",
    "any_process",
    "barrier",
    "distributed_session",
    "is_main_process",
    "local_rank",
    "mean_over_processes",
    "rank",
    "world_size",
]

_control: dict[str, Any] = {}  # a gloo group beside NCCL: small messages that must not wait for the GPU


def _active() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """This process's number, 0 the main one."""
    return dist.get_rank() if _active() else 0


def world_size() -> int:
    """How many processes work together."""
    return dist.get_world_size() if _active() else 1


def local_rank() -> int:
    """This process's number on its machine, which is also that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def is_main_process() -> bool:
    """Whether this process prints and writes files."""
    return rank() == 0


@contextmanager
def distributed_session(device: torch.device | str = "auto") -> Iterator[torch.device]:
    """Join the processes that ``torchrun`` started, and leave them at the end.

    Without torchrun's variables (or with one process) nothing is started. NCCL on CUDA, gloo elsewhere.

    Args:
        device: see ``select_device``.

    Yields:
        The device of this process.
    """
    chosen = select_device(device)
    started = int(os.environ.get("WORLD_SIZE", "1")) > 1 and not _active()
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if started:
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield chosen
    finally:
        if started:
            _control.clear()
            dist.destroy_process_group()


def barrier() -> None:
    """Wait for all processes."""
    if world_size() > 1:
        dist.barrier(group=_control_group())


def all_gather(value: Any) -> list[Any]:
    """The value of every process, in order of rank; any object that pickles."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value, group=_control_group())
    return values


def any_process(flag: bool) -> bool:
    """Whether ``flag`` holds on at least one process; the answer is the same on all."""
    if world_size() == 1:
        return flag
    vote = torch.tensor(int(flag))
    dist.all_reduce(vote, op=dist.ReduceOp.MAX, group=_control_group())
    return bool(vote)


def mean_over_processes(values: dict[str, float]) -> dict[str, float]:
    """Key-wise means, each over the processes that have the key."""
    if world_size() == 1:
        return values
    collected: dict[str, list[float]] = {}
    for part in all_gather(values):
        for key, value in part.items():
            collected.setdefault(key, []).append(value)
    return {key: sum(found) / len(found) for key, found in collected.items()}


def _control_group() -> Any:
    if dist.get_backend() == "gloo":
        return None
    if "group" not in _control:
        _control["group"] = dist.new_group(backend="gloo")
    return _control["group"]
