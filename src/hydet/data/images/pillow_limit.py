"""Lifts Pillow's own limit on the number of pixels, which this package replaces with a limit that users can set."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

from PIL import Image

__all__ = ["without_pillow_limit"]


class _Limit:
    """Pillow's limit, a global variable, and the number of threads that work without it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.saved: int | None = None

    def lift(self) -> None:
        with self.lock:
            if self.users == 0:
                self.saved, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            self.users += 1

    def restore(self) -> None:
        with self.lock:
            self.users -= 1
            if self.users == 0:
                Image.MAX_IMAGE_PIXELS = self.saved

    def forget_threads(self) -> None:
        """Start anew in a forked process, which has only the thread that forked."""
        self.lock = threading.Lock()
        if self.users:
            self.users, Image.MAX_IMAGE_PIXELS = 0, self.saved


_limit = _Limit()
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_limit.forget_threads)


@contextlib.contextmanager
def without_pillow_limit() -> Iterator[None]:
    """Suspend ``PIL.Image.MAX_IMAGE_PIXELS``, which warns from 89 megapixels on and refuses more than 179."""
    _limit.lift()
    try:
        yield
    finally:
        _limit.restore()
