"""Compute batch-norm statistics from many batches with the same weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from hydet.distributed import sum_tensor_over_processes, world_size

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

    The variance is the mean of squares over all batches minus the square of their mean.

    Args:
        every: steps between two updates; use the interval of the evaluation.
        batches: number of batches to average on each process. All processes get the average over all their batches.

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
        norms = [m for m in trainer.model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        squares = [_MeanOfSquares(norm) for norm in norms if norm.track_running_stats]
        try:
            with trainer.autocast():
                # update_bn passes the first element of each item to the model.
                update_bn(((batch,) for batch in batches), trainer.model)
            for square in squares:
                square.set_variance()
        finally:
            for square in squares:
                square.close()
            for module, state in zip(modules, states, strict=True):
                module.load_training_state(state)
            set_random_state(random, trainer.device)
        trainer.print(f"updated batch-norm statistics from {self.batches} batches")


class _MeanOfSquares:
    """Adds the variance of the batch means to the running variance of a layer, which averages batch variances.

    The mean of the batch variances leaves out how much the batch means differ. With it, the variance is the mean of
    squares minus the square of the mean, as over all batches together.
    """

    def __init__(self, norm: nn.modules.batchnorm._BatchNorm) -> None:
        self._norm = norm
        self._count = 0
        self._last: Tensor | None = None  # mean over the batches so far
        self._sum: Tensor | None = None  # squares of the batch means
        self._handle = norm.register_forward_hook(self._record)

    def _record(self, module: nn.Module, args: object, output: object) -> None:
        mean = self._norm.running_mean
        if mean is None or not self._norm.training:
            return
        # With momentum None, running_mean is the plain average of the batch means, so their differences give each one.
        before = torch.zeros_like(mean) if self._last is None else self._last
        batch_mean = (mean.double() * (self._count + 1)) - before.double() * self._count
        self._sum = batch_mean**2 if self._sum is None else self._sum + batch_mean**2
        self._count, self._last = self._count + 1, mean.clone()

    def set_variance(self) -> None:
        """Replace the running variance, and combine the statistics of all processes."""
        mean, variance = self._norm.running_mean, self._norm.running_var
        if self._sum is None or mean is None or variance is None:
            return
        between = (self._sum / self._count - mean.double() ** 2).clamp(min=0)
        variance.add_(between.to(variance.dtype))
        if world_size() > 1:
            moments = torch.stack([mean.double(), variance.double() + mean.double() ** 2])
            mean_over_all, square = sum_tensor_over_processes(moments) / world_size()
            mean.copy_(mean_over_all)
            variance.copy_(square - mean_over_all**2)

    def close(self) -> None:
        """Remove the hook."""
        self._handle.remove()
