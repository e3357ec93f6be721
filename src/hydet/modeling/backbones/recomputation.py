"""Running a block again in the backward pass instead of keeping what it computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint

__all__ = ["checkpointed"]


def checkpointed(block: nn.Module, *args: Any) -> Tensor:
    """``block(*args)``, keeping only its arguments for the backward pass.

    Batch normalisations update their statistics in the first run only.
    """
    norms = [m for m in block.modules() if isinstance(m, _NormBase) and m.training and m.track_running_stats]
    if not norms:
        return checkpoint(block, *args, use_reentrant=False)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _kept_statistics(norms)

    return checkpoint(block, *args, use_reentrant=False, context_fn=contexts)


@contextmanager
def _kept_statistics(norms: Sequence[_NormBase]) -> Iterator[None]:
    # The statistics stay arguments of the operator: the second run must save as many tensors as the first.
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    try:
        for norm in norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before):
            norm.momentum, norm.num_batches_tracked = momentum, count
