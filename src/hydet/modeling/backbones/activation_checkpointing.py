"""Activation checkpointing: recompute a block in the backward pass instead of storing its activations.

Batch norms update their running statistics in the first forward pass only; the recomputation would count a batch twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NamedTuple, TypeVar

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint
from torch.utils.hooks import RemovableHandle

__all__ = ["StatisticsGuard", "run_checkpointed"]

R = TypeVar("R")


class _Statistics(NamedTuple):
    """Attributes of a batch norm that a recomputation must not use."""

    momentum: float | None
    num_batches_tracked: Tensor | None


def run_checkpointed(block: nn.Module, *args: Tensor | None) -> Tensor:
    """Return ``block(*args)`` and store only the arguments for the backward pass, which runs the block again.

    Batch norms update their running statistics once.
    """
    norms = [norm for norm in _norms_with_statistics(block) if norm.training]

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _frozen_statistics(norms)

    output: Tensor
    if norms:
        output = checkpoint(block, *args, use_reentrant=False, context_fn=contexts)
    else:  # the default contexts are cheaper, and torch.compile supports them
        output = checkpoint(block, *args, use_reentrant=False)
    return output


class StatisticsGuard:
    """Guard of running statistics for a network that calls ``torch.utils.checkpoint`` itself.

    Such a network recomputes its blocks in the backward pass, after its ``forward`` has returned. Batch norms that run
    outside of ``run`` therefore belong to a recomputation, and their statistics stay constant.

    Args:
        network: network whose batch norms are guarded until ``close``.
    """

    def __init__(self, network: nn.Module) -> None:
        self._in_forward = False
        self._saved: dict[nn.Module, _Statistics] = {}
        self._handles: list[RemovableHandle] = []
        for norm in _norms_with_statistics(network):
            self._handles += [
                norm.register_forward_pre_hook(self._before_norm),
                # A recomputation stops by an exception as soon as it has all tensors that it needs.
                norm.register_forward_hook(self._after_norm, always_call=True),
            ]

    def run(self, network: Callable[[Tensor], R], x: Tensor) -> R:
        """Return ``network(x)`` and update running statistics."""
        self._in_forward = True
        try:
            return network(x)
        finally:
            self._in_forward = False

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()

    def _before_norm(self, norm: nn.Module, args: object) -> None:
        if not self._in_forward and norm.training and isinstance(norm, _NormBase):
            self._saved[norm] = _freeze_statistics(norm)

    def _after_norm(self, norm: nn.Module, args: object, output: object) -> None:
        if norm in self._saved and isinstance(norm, _NormBase):
            _restore_statistics(norm, self._saved.pop(norm))


def _norms_with_statistics(network: nn.Module) -> list[_NormBase]:
    return [m for m in network.modules() if isinstance(m, _NormBase) and m.track_running_stats]


@contextmanager
def _frozen_statistics(norms: Sequence[_NormBase]) -> Iterator[None]:
    saved = [_freeze_statistics(norm) for norm in norms]
    try:
        yield
    finally:
        for norm, statistics in zip(norms, saved):
            _restore_statistics(norm, statistics)


def _freeze_statistics(norm: _NormBase) -> _Statistics:
    # The recomputation must save the same tensors as the first pass. A momentum of 0 keeps the statistics as arguments
    # of the operator without changing them.
    saved = _Statistics(norm.momentum, norm.num_batches_tracked)
    norm.momentum, norm.num_batches_tracked = 0.0, None
    return saved


def _restore_statistics(norm: _NormBase, saved: _Statistics) -> None:
    norm.momentum, norm.num_batches_tracked = saved.momentum, saved.num_batches_tracked
