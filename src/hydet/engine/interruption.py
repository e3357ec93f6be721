"""Finish the current step after SIGTERM or Ctrl-C."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Self

__all__ = ["SIGPIPE", "InterruptionWatch", "TrainingInterrupted"]

# Ctrl-C, the signal that cluster schedulers send before they kill a job, and Ctrl-Break, which only Windows has.
_NAMES = ("SIGINT", "SIGTERM", "SIGBREAK")
# A signal to a whole process group reaches this process directly and once more through a launcher such as torchrun.
_SAME_REQUEST_SECONDS = 2.0

SIGPIPE = 13  # Windows has no such signal, but closed pipes


class TrainingInterrupted(SystemExit):
    """A signal ended the run after a complete step. The exit status is 130 for Ctrl-C and 143 for SIGTERM.

    The end of the program that reads standard output counts as the signal SIGPIPE, with the exit status 141.
    """

    def __init__(self, signum: int, step: int) -> None:
        super().__init__(128 + signum)
        self.signum = signum
        self.step = step

    def __str__(self) -> str:
        if self.signum == SIGPIPE:
            return f"standard output was closed; ended after step {self.step}"
        return f"interrupted by {signal.Signals(self.signum).name} after step {self.step}"


class InterruptionWatch:
    """Record the first SIGINT or SIGTERM inside the ``with`` block instead of ending the process.

    A second signal has its usual effect, unless it arrives within two seconds: a launcher that receives a signal together
    with its processes also forwards it to them. Only the main thread can catch signals; in other threads the watch
    does nothing.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._first_time = 0.0
        self._previous_handlers: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> Self:
        self.signum = None
        if threading.current_thread() is threading.main_thread():
            for signum in (getattr(signal, name) for name in _NAMES if hasattr(signal, name)):
                self._previous_handlers[signum] = signal.signal(signum, self._record)
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._restore()

    def _record(self, signum: int, _: FrameType | None) -> None:
        if self.signum is None:
            self.signum, self._first_time = signum, time.monotonic()
        elif time.monotonic() - self._first_time > _SAME_REQUEST_SECONDS:
            self._restore()
            signal.raise_signal(signum)

    def _restore(self) -> None:
        for signum, handler in self._previous_handlers.items():
            signal.signal(signum, handler if handler is not None else signal.SIG_DFL)
        self._previous_handlers = {}
