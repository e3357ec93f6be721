"""The process group that ``torchrun`` sets up, and this process's place in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from .devices import select_device

__all__ = [
    "barrier",
    "control_group",
    "distributed_session",
    "is_main_process",
    "local_rank",
    "rank",
    "world_size",
]

# A gloo group beside NCCL, for small messages that must not wait for the GPU.
_control_groups: list[dist.ProcessGroup] = []


def _is_initialized() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Return this process's rank, 0 for the main process."""
    return dist.get_rank() if _is_initialized() else 0


def world_size() -> int:
    """Return the number of processes in the group."""
    return dist.get_world_size() if _is_initialized() else 1


def local_rank() -> int:
    """Return this process's rank on its machine, which is also the index of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def is_main_process() -> bool:
    """Return True on the process that prints and writes files."""
    return rank() == 0


@contextmanager
def distributed_session(device: torch.device | str = "auto") -> Iterator[torch.device]:
    """Join the process group that ``torchrun`` describes, and leave it on exit.

    Without torchrun's environment variables, or with one process, no group is created. The backend is NCCL on CUDA
    and gloo elsewhere.

    Args:
        device: see :func:`select_device`.

    Yields:
        The device of this process.
    """
    selected = select_device(device)
    starts_group = int(os.environ.get("WORLD_SIZE", "1")) > 1 and not _is_initialized()
    if selected.type == "cuda":
        torch.cuda.set_device(selected)
    if starts_group:
        dist.init_process_group("nccl" if selected.type == "cuda" else "gloo")
    try:
        yield selected
    finally:
        if starts_group:
            _control_groups.clear()
            dist.destroy_process_group()


def barrier() -> None:
    """Wait until every process has reached this call."""
    if world_size() > 1:
        dist.barrier(group=control_group())


def control_group() -> dist.ProcessGroup | None:
    """Return the group for small CPU messages; None stands for the default group."""
    if dist.get_backend() == "gloo":
        return None
    if not _control_groups:
        group = dist.new_group(backend="gloo")
        if not isinstance(group, dist.ProcessGroup):  # GroupMember.NON_GROUP_MEMBER
            raise RuntimeError("this process does not belong to the process group")
        _control_groups.append(group)
    return _control_groups[0]
