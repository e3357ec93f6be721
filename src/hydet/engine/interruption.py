"""SIGTERM and Ctrl-C: finish the step first."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

__all__ = ["InterruptionWatch", "TrainingInterrupted"]


class TrainingInterrupted(SystemExit):
    """A signal ended the run after a complete step; as an exit status it is 130 (Ctrl-C) or 143 (SIGTERM)."""

    def __init__(self, signum: int, step: int) -> None:
        super().__init__(128 + signum)
        self.signum = signum
        self.step = step

    def __str__(self) -> str:
        return f"interrupted by {signal.Signals(self.signum).name} after step {self.step}"


class InterruptionWatch:
    """While entered, remembers a first SIGINT or SIGTERM instead of dying of it; a second one works as usual.

    Only the main thread can catch signals; elsewhere this does nothing.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> InterruptionWatch:
        self.signum = None
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._before[signum] = signal.signal(signum, self._remember)
        return self

    def __exit__(self, *_: Any) -> None:
        self._restore()

    def _remember(self, signum: int, _: FrameType | None) -> None:
        self.signum = signum
        self._restore()

    def _restore(self) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler if handler is not None else signal.SIG_DFL)
        self._before = {}
