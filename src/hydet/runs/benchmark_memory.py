"""Peak memory of one run of a model, in this process or in one of its own."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from omegaconf import DictConfig

from .benchmark_run import Contestant
from .benchmark_works import Variant, build_subject, build_work

__all__ = ["peak_bytes", "peak_bytes_apart"]

_INTERVAL = 0.002  # seconds between two readings of the memory of the process
_STATM = Path("/proc/self/statm")


def peak_bytes(contestant: Contestant) -> int | None:
    """Return the memory that one run needs on top of what is allocated before it; None if it cannot be measured.

    On a CPU, memory that earlier work has freed but the allocator still holds does not count, unless the C library can
    return it to the system. ``peak_bytes_apart`` avoids most of it.
    """
    if contestant.device.type == "cuda":
        torch.cuda.synchronize(contestant.device)
        before = torch.cuda.memory_allocated(contestant.device)
        torch.cuda.reset_peak_memory_stats(contestant.device)
        contestant.run()
        torch.cuda.synchronize(contestant.device)
        return torch.cuda.max_memory_allocated(contestant.device) - before
    if contestant.device.type != "cpu" or not _STATM.exists():
        return None
    done, peak = threading.Event(), 0

    def watch() -> None:
        nonlocal peak
        while not done.wait(_INTERVAL):
            peak = max(peak, _resident())

    gc.collect()  # memory that is freed during the run would be subtracted
    _return_freed_memory()
    before = _resident()
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    contestant.run()
    peak = max(peak, _resident())
    done.set()
    watcher.join()
    return max(0, peak - before)


def peak_bytes_apart(config: DictConfig, variant: Variant) -> int | None:
    """Build a variant in a process of its own, run it, and return the peak memory of its second run.

    Only the allocator of a CPU needs that: it keeps freed memory, so that the peaks of two models in one process depend
    on their order.

    Args:
        config: see ``conf/benchmark.yaml``.
        variant: the form of the model.

    Returns:
        Bytes, or None where the memory of a process cannot be read.
    """
    if not _STATM.exists():
        return None
    context = multiprocessing.get_context("spawn")  # a forked process would share the parent's allocator
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(_measure, config, variant, torch.get_num_threads()).result()


def _measure(config: DictConfig, variant: Variant, threads: int) -> int | None:
    torch.set_num_threads(threads)
    work = build_work(config, build_subject(config), variant)
    work.run()  # compiles, and lets libraries allocate what they keep
    return peak_bytes(work)


def _resident() -> int:
    import resource  # not on Windows, which has no /proc either

    return int(_STATM.read_text(encoding="ascii").split()[1]) * resource.getpagesize()


def _return_freed_memory() -> None:
    """Let the C library return freed memory to the system, where it can."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # another C library than glibc
        return
