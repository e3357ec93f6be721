"""Statistics of batch normalisation from many batches of the same weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.optim.swa_utils import update_bn

from ..seeding import random_state, set_random_state
from .callback import Callback
from .loss_window import check_every, is_due

if TYPE_CHECKING:
    from ..trainer import Trainer

__all__ = ["PreciseBatchNorm"]


class PreciseBatchNorm(Callback):
    """Before an evaluation, replaces running means and variances by averages over batches of the present weights.

    Running averages lag behind the weights, the more so the faster these change. The batches are those that the run
    takes next; but for the statistics the run goes on as if nothing had happened. Layers whose statistics are frozen
    keep them, and so does an average of the weights (``EMA``).

    Args:
        every: steps between renewals; the same number as between evaluations.
        batches: how many are averaged.

    Source: Wu and Johnson 2021 (arXiv:2105.07576), section 3.
    """

    order = -50  # after an average of the weights, before evaluations and checkpoints

    def __init__(self, *, every: int, batches: int = 200) -> None:
        if isinstance(batches, bool) or not isinstance(batches, int) or batches < 1:
            raise ValueError(f"batches must be a whole number of at least 1, got {batches!r}")
        self.every = check_every(every)
        self.batches = batches

    def on_fit_start(self, trainer: Trainer) -> None:
        """See that there is something to do, and the data to do it.

        Raises:
            ValueError: if no layer of the model has running statistics.
            TypeError: if the training loader is a mere iterator, from which batches cannot be read ahead.
        """
        if not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in trainer.model.modules()):
            raise ValueError(
                "PreciseBatchNorm: the model has no batch normalisation with running statistics; "
                "callbacks.precise_bn=null leaves this out"
            )
        if isinstance(trainer.train_loader, Iterator):
            raise TypeError(
                "PreciseBatchNorm needs a loader that gives a new iterator each time, got an iterator"
            )

    def on_step_end(self, trainer: Trainer) -> None:
        if is_due(trainer.step, self.every, trainer.max_steps):
            self.renew(trainer)

    def renew(self, trainer: Trainer) -> None:
        """Compute the statistics now."""
        streams = random_state(trainer.device)
        stateful: list[Any] = [m for m in trainer.model.modules() if hasattr(m, "load_training_state")]
        states = [copy.deepcopy(module.training_state()) for module in stateful]
        ahead = islice(copy.copy(trainer.train_loader), self.batches)  # a copy: the run's own place stays
        try:
            with trainer.autocast():
                # Of each entry, torch gives the first part to the model.
                update_bn(((batch,) for batch in ahead), trainer.model)
        finally:
            for module, state in zip(stateful, states, strict=True):
                module.load_training_state(state)
            set_random_state(streams, trainer.device)
        trainer.print(f"statistics of batch normalisation renewed from {self.batches} batches")
