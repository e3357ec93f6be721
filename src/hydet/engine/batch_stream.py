"""An endless stream of training batches."""

from __future__ import annotations

from collections.abc import Generator, Iterable

import torch

from .protocols import Batch, Closeable
from .seeding import random_state, set_random_state

__all__ = ["BatchStream"]


class BatchStream:
    """Iterate over a loader without end; a loader that ends is started again.

    Args:
        loader: batches of model inputs.
        device: device whose random number generator ``keep_random_state`` covers.
        keep_random_state: restore the random number generators after the loader has started. Starting a loader may
            draw random numbers, and a resumed run starts it at another step than the original run did.
    """

    def __init__(
        self, loader: Iterable[Batch], *, device: torch.device, keep_random_state: bool = False
    ) -> None:
        self._batches = _endless(loader)
        self._device = device
        self._keep_random_state = keep_random_state

    def __iter__(self) -> BatchStream:
        return self

    def __next__(self) -> Batch:
        """Return the next batch.

        Raises:
            ValueError: if the loader has no batches.
        """
        state = random_state(self._device) if self._keep_random_state else None
        batch = next(self._batches)
        if state is not None:
            set_random_state(state, self._device)
            self._keep_random_state = False
        return batch

    def close(self) -> None:
        """End the worker processes of the loader."""
        self._batches.close()


def _endless(loader: Iterable[Batch]) -> Generator[Batch, None, None]:
    while True:
        is_empty = True
        batches = iter(loader)
        try:
            for batch in batches:
                is_empty = False
                yield batch
        finally:
            if isinstance(batches, Closeable):
                batches.close()
        if is_empty:
            raise ValueError("the training loader has no batches")
