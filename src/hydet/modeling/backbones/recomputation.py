"""Running a block again in the backward pass instead of keeping what it computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint

__all__ = ["KeptStatistics", "checkpointed"]


def checkpointed(block: nn.Module, *args: Any) -> Tensor:
    """``block(*args)``, keeping only its arguments for the backward pass.

    Batch normalisations update their statistics in the first run only.
    """
    norms = [norm for norm in _with_statistics(block) if norm.training]
    if not norms:
        return checkpoint(block, *args, use_reentrant=False)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _kept_statistics(norms)

    return checkpoint(block, *args, use_reentrant=False, context_fn=contexts)


class KeptStatistics:
    """Lets batch normalisations update their statistics in the first run only, where others do the checkpointing.

    A network whose own code calls ``torch.utils.checkpoint`` runs its blocks again outside of its ``forward``.

    Args:
        network: its batch normalisations are watched until ``close``.
    """

    def __init__(self, network: nn.Module) -> None:
        self._running = False
        self._before: dict[nn.Module, tuple[Any, Any]] = {}
        self._handles: list[Any] = []
        for norm in _with_statistics(network):
            self._handles += [
                norm.register_forward_pre_hook(self._start),
                norm.register_forward_hook(
                    self._end, always_call=True
                ),  # a second run ends where it has enough
            ]

    def run(self, network: Callable[[Tensor], Any], x: Tensor) -> Any:
        """``network(x)``, as the first run."""
        self._running = True
        try:
            return network(x)
        finally:
            self._running = False

    def close(self) -> None:
        """Stop watching."""
        for handle in self._handles:
            handle.remove()

    def _start(self, norm: Any, args: Any) -> None:
        if not self._running and norm.training:
            self._before[norm] = _hold(norm)

    def _end(self, norm: Any, args: Any, output: Any) -> None:
        if norm in self._before:
            _release(norm, self._before.pop(norm))


def _with_statistics(network: nn.Module) -> list[_NormBase]:
    return [m for m in network.modules() if isinstance(m, _NormBase) and m.track_running_stats]


@contextmanager
def _kept_statistics(norms: Sequence[_NormBase]) -> Iterator[None]:
    before = [_hold(norm) for norm in norms]
    try:
        yield
    finally:
        for norm, held in zip(norms, before):
            _release(norm, held)


def _hold(norm: Any) -> tuple[float | None, Tensor | None]:
    # The statistics stay arguments of the operator: the second run must save as many tensors as the first.
    before = norm.momentum, norm.num_batches_tracked
    norm.momentum, norm.num_batches_tracked = 0.0, None
    return before


def _release(norm: Any, before: tuple[float | None, Tensor | None]) -> None:
    norm.momentum, norm.num_batches_tracked = before
