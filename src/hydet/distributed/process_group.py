"""The process group that ``torchrun`` sets up, and this process's place in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from .devices import select_device
from .lost_process import explain_lost_process

__all__ = [
    "barrier",
    "control_group",
    "distributed_session",
    "is_main_process",
    "local_rank",
    "rank",
    "world_size",
]

DEFAULT_TIMEOUT = 600.0  # seconds
MAX_TIMEOUT = 7 * 24 * 3600
# The watchdog of NCCL ends a process without a message, so the group for small messages has to notice first.
_NCCL_MARGIN = 60.0

# A gloo group beside NCCL, for small messages that must not wait for the GPU.
_control_groups: list[dist.ProcessGroup] = []
_timeouts: list[timedelta] = []


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
def distributed_session(
    device: torch.device | str = "auto", *, timeout: float = DEFAULT_TIMEOUT, advice: str = ""
) -> Iterator[torch.device]:
    """Join the process group that ``torchrun`` describes, and leave it on exit.

    Without torchrun's environment variables, or with one process, no group is created. The backend is NCCL on CUDA
    and gloo elsewhere.

    Args:
        device: see :func:`select_device`.
        timeout: seconds for which a process waits for another one. It must exceed the time that the main process works
            alone, such as on the metrics of a large dataset.
        advice: added to the message of ``LostProcessError``.

    Yields:
        The device of this process.

    Raises:
        ValueError: if ``timeout`` is not a positive number.
        LostProcessError: instead of the errors of the backend, if another process ends or does not answer in time.
    """
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout <= MAX_TIMEOUT:
        raise ValueError(
            f"distributed_timeout must be a number of seconds above 0 and up to {MAX_TIMEOUT}, got {timeout!r}"
        )
    selected = select_device(device)
    starts_group = int(os.environ.get("WORLD_SIZE", "1")) > 1 and not _is_initialized()
    if selected.type == "cuda":
        torch.cuda.set_device(selected)
    if not starts_group:
        yield selected
        return
    with explain_lost_process(timeout=timeout, advice=advice):
        try:
            _start_group("nccl" if selected.type == "cuda" else "gloo", timeout)
            yield selected
        finally:
            _control_groups.clear()
            _timeouts.clear()
            if _is_initialized():
                dist.destroy_process_group()


def _start_group(backend: str, timeout: float) -> None:
    _timeouts.append(timedelta(seconds=timeout))
    margin = _NCCL_MARGIN if backend == "nccl" else 0.0
    dist.init_process_group(backend, timeout=timedelta(seconds=timeout + margin))


def barrier() -> None:
    """Wait until every process has reached this call."""
    if world_size() > 1:
        dist.barrier(group=control_group())


def control_group() -> dist.ProcessGroup | None:
    """Return the group for small CPU messages; None stands for the default group."""
    if dist.get_backend() == "gloo":
        return None
    if not _control_groups:
        # Without a session, such as in a program that calls torch itself, the default of the backend holds.
        group = dist.new_group(backend="gloo", timeout=_timeouts[0] if _timeouts else None)
        if not isinstance(group, dist.ProcessGroup):  # GroupMember.NON_GROUP_MEMBER
            raise RuntimeError("this process does not belong to the process group")
        _control_groups.append(group)
    return _control_groups[0]
