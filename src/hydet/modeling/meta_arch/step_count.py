"""The number of positives of an optimizer step, over all its batches and all processes."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["StepCount", "next_normalizer"]

OLD_WEIGHT, NEW_WEIGHT = 0.9, 0.1  # in the running mean


class StepCount:
    """Counts the positives of one optimizer step, whose gradients accumulate over several batches.

    The normalizer of the step depends on the positives of all its batches, but the losses of the first batch are needed
    before the last batch is known. All batches therefore use an estimate from the first one, and ``finish`` returns the
    factor that corrects the sum of their gradients.

    Args:
        num_batches: number of batches of the step on each process.

    Raises:
        ValueError: if ``num_batches`` is below 1.
    """

    def __init__(self, num_batches: int) -> None:
        if num_batches < 1:
            raise ValueError(f"num_batches must be at least 1, got {num_batches}")
        self.num_batches = num_batches
        self._positives: Tensor | None = None
        self._estimate: Tensor | None = None

    def add(self, num_positives: Tensor, running_mean: Tensor) -> Tensor:
        """Count a batch and return the estimated normalizer of the step, exact if the step has one batch.

        Args:
            num_positives: number of positives of the batch over all processes.
            running_mean: normalizer of the previous step.
        """
        if self._positives is None or self._estimate is None:
            self._positives = num_positives
            self._estimate = next_normalizer(running_mean, num_positives * self.num_batches)
        else:
            self._positives = self._positives + num_positives
        return self._estimate

    def finish(self, running_mean: Tensor) -> Tensor | None:
        """Update ``running_mean`` in place, and return the factor from the estimated normalizer to the exact one.

        Returns:
            The factor for the losses and gradients of the step; None if they are exact.
        """
        if self._positives is None or self._estimate is None:
            return None
        running_mean.copy_(next_normalizer(running_mean, self._positives))
        return None if self.num_batches == 1 else self._estimate / running_mean


@torch.no_grad()
def next_normalizer(running_mean: Tensor, num_positives: Tensor) -> Tensor:
    """Return the running mean of the number of positives after one more step.

    A mean over steps is steadier than the count of one batch, which may be very small.
    """
    return running_mean.mul(OLD_WEIGHT).add(num_positives.clamp(min=1).float(), alpha=NEW_WEIGHT)
