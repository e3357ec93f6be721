"""Signals that reach the worker processes together with the main process."""

from __future__ import annotations

import signal
from types import FrameType

__all__ = ["outlive_signals"]


def outlive_signals(worker_id: int = 0) -> None:
    """Let this worker process go on after Ctrl-C and after a first SIGTERM.

    A terminal or a cluster scheduler sends a signal to all processes of a run. The main process then finishes its step
    and ends the workers itself, but the step may still need their batches. A second SIGTERM ends the worker, so that
    the main process can stop one that hangs.

    Args:
        worker_id: number of the worker, which ``DataLoader`` passes.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_next_time)


def _end_next_time(signum: int, _: FrameType | None) -> None:
    signal.signal(signum, signal.SIG_DFL)
