"""Compute batch-norm statistics from many batches with the same weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from torch import nn
from torch.optim.swa_utils import update_bn

from ..protocols import KeepsTrainingState
from ..seeding import random_state, set_random_state
from .callback import Callback, CallbackPhase
from .step_interval import check_interval, is_due

if TYPE_CHECKING:
    from ..trainer import Trainer

__all__ = ["PreciseBatchNorm"]


class PreciseBatchNorm(Callback):
    """Replace running means and variances by averages over batches with the current weights, before an evaluation.

    Running averages lag behind the weights, which matters most while the weights change fast. The averages are computed
    from the batches that the run uses next. Nothing else in the run changes: neither the position of the loader nor
    random numbers. Layers with frozen statistics and moving averages of the weights (``EMA``) keep their statistics.

    Args:
        every: steps between two updates; use the interval of the evaluation.
        batches: number of batches to average.

    Source: Wu and Johnson 2021 (arXiv:2105.07576), section 3.
    """

    phase = CallbackPhase.PREPARE_EVALUATION

    def __init__(self, *, every: int, batches: int = 200) -> None:
        if isinstance(batches, bool) or not isinstance(batches, int) or batches < 1:
            raise ValueError(f"batches must be a whole number of at least 1, got {batches!r}")
        self.every = check_interval(every)
        self.batches = batches

    def on_fit_start(self, trainer: Trainer) -> None:
        """Check that the model has statistics, and that the loader can provide the batches.

        Raises:
            ValueError: if no layer of the model has running statistics.
            TypeError: if the training loader is an iterator, which cannot be read ahead.
        """
        if not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in trainer.model.modules()):
            raise ValueError(
                "PreciseBatchNorm: the model has no batch normalization with running statistics; "
                "callbacks.precise_bn=null switches this callback off"
            )
        if isinstance(trainer.train_loader, Iterator):
            raise TypeError(
                "PreciseBatchNorm needs a loader that returns a new iterator each time, got an iterator"
            )

    def on_step_end(self, trainer: Trainer) -> None:
        """Update the statistics if it is time."""
        if is_due(trainer.step, self.every, trainer.max_steps):
            self.update(trainer)

    def update(self, trainer: Trainer) -> None:
        """Update the statistics now."""
        random = random_state(trainer.device)
        modules = [m for m in trainer.model.modules() if isinstance(m, KeepsTrainingState)]
        states = [copy.deepcopy(module.training_state()) for module in modules]
        # A copy of the loader, so that the position of the run does not change.
        batches = islice(copy.copy(trainer.train_loader), self.batches)
        try:
            with trainer.autocast():
                # update_bn passes the first element of each item to the model.
                update_bn(((batch,) for batch in batches), trainer.model)
        finally:
            for module, state in zip(modules, states, strict=True):
                module.load_training_state(state)
            set_random_state(random, trainer.device)
        trainer.print(f"updated batch-norm statistics from {self.batches} batches")
