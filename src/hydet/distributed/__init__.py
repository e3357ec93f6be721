"""Devices, process groups and collectives; every function also works in a single process."""

from .buffers import synchronize_buffers
from .collectives import (
    all_gather,
    any_process,
    broadcast_from_main,
    compute_on_main,
    gather_on_main,
    mean_over_processes,
    sum_over_processes,
    sum_tensor_over_processes,
)
from .devices import cuda_rng_devices, resolve_precision, select_device
from .lost_process import LostProcessError
from .process_group import barrier, distributed_session, is_main_process, local_rank, rank, world_size

__all__ = [
    "LostProcessError",
    "all_gather",
    "any_process",
    "barrier",
    "broadcast_from_main",
    "compute_on_main",
    "cuda_rng_devices",
    "distributed_session",
    "gather_on_main",
    "is_main_process",
    "local_rank",
    "mean_over_processes",
    "rank",
    "resolve_precision",
    "select_device",
    "sum_over_processes",
    "sum_tensor_over_processes",
    "synchronize_buffers",
    "world_size",
]
