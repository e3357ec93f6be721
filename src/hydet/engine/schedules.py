"""Learning rates over time: a linear warm-up, then steps or a cosine.

Each schedule is a function of the step number alone, so that a resumed run needs nothing but that number.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

__all__ = ["constant", "scale_lr", "warmup_cosine", "warmup_multistep"]


def scale_lr(lr: float, batch_size: int, reference_batch: int = 16) -> float:
    """The learning rate for ``batch_size`` images a step, if ``lr`` suits ``reference_batch``.

    Source: the linear scaling rule, Goyal et al. 2017 (arXiv:1706.02677), section 2.1.
    """
    if batch_size < 1 or reference_batch < 1:
        raise ValueError(f"batch sizes must be positive, got {batch_size} and {reference_batch}")
    return lr * batch_size / reference_batch


def constant(optimizer: Optimizer, *, warmup_steps: int = 0, warmup_factor: float = 0.001) -> LambdaLR:
    """A linear warm-up, then the optimizer's learning rate for ever."""
    return LambdaLR(optimizer, with_warmup(lambda step: 1.0, warmup_steps, warmup_factor))


def warmup_multistep(
    optimizer: Optimizer,
    *,
    milestones: Sequence[int | float],
    gamma: float = 0.1,
    warmup_steps: int | float = 1000,
    warmup_factor: float = 0.001,
    max_steps: int | None = None,
) -> LambdaLR:
    """A linear warm-up, then a step down at each milestone.

    Args:
        optimizer: its learning rates are those between warm-up and first milestone.
        milestones: increasing; step numbers, or (all of them) fractions of ``max_steps`` between 0 and 1.
        gamma: factor at each milestone.
        warmup_steps: a number of steps, or a fraction of ``max_steps``.
        warmup_factor: the first step's learning rate, relative to the full one.
        max_steps: length of the run, needed for fractions only.

    Raises:
        ValueError: for milestones that do not increase, and fractions without ``max_steps``.
    """
    steps = [_as_steps("milestones", m, max_steps) for m in milestones]
    if any(a >= b for a, b in pairwise(milestones)):
        raise ValueError(f"milestones must increase, got {list(milestones)}")
    warmup = _as_steps("warmup_steps", warmup_steps, max_steps)
    return LambdaLR(
        optimizer, with_warmup(lambda step: gamma ** bisect_right(steps, step), warmup, warmup_factor)
    )


def warmup_cosine(
    optimizer: Optimizer,
    *,
    max_steps: int,
    warmup_steps: int | float = 1000,
    warmup_factor: float = 0.001,
    final_factor: float = 0.0,
) -> LambdaLR:
    """A linear warm-up into half a cosine over ``max_steps``.

    Args:
        optimizer: its learning rates are the cosine's start.
        max_steps: length of the run, warm-up included.
        warmup_steps: a number of steps, or a fraction of ``max_steps``.
        warmup_factor: the first step's learning rate, relative to the full one.
        final_factor: the last step's learning rate, relative to the full one.

    Source: Loshchilov and Hutter 2017 (arXiv:1608.03983), section 3, without restarts.
    """
    if max_steps < 1:
        raise ValueError(f"max_steps must be at least 1, got {max_steps}")

    def cosine(step: float) -> float:
        done = min(step / max_steps, 1.0)
        return final_factor + (1 - final_factor) * 0.5 * (1 + math.cos(math.pi * done))

    warmup = _as_steps("warmup_steps", warmup_steps, max_steps)
    return LambdaLR(optimizer, with_warmup(cosine, warmup, warmup_factor))


def with_warmup(
    schedule: Callable[[int], float], warmup_steps: int, warmup_factor: float
) -> Callable[[int], float]:
    """Start at ``warmup_factor`` of the schedule's first value and go straight to where it is after the warm-up."""
    if warmup_steps < 0:
        raise ValueError(f"warmup_steps must not be negative, got {warmup_steps}")
    if not 0 <= warmup_factor <= 1:
        raise ValueError(f"warmup_factor must lie in [0, 1], got {warmup_factor}")

    def factor(step: int) -> float:
        if step >= warmup_steps:
            return schedule(step)
        start, end = warmup_factor * schedule(0), schedule(warmup_steps)
        return start + (end - start) * step / warmup_steps

    return factor


def _as_steps(name: str, value: int | float, max_steps: int | None) -> int:
    if isinstance(value, bool) or value < 0:
        raise ValueError(f"{name} must not be negative, got {value}")
    if isinstance(value, int):
        return value
    if not 0 <= value <= 1:
        raise ValueError(f"{name} takes whole numbers of steps, or fractions between 0 and 1, got {value}")
    if max_steps is None:
        raise ValueError(f"{name}={value} is a fraction of the run: it needs max_steps")
    return round(value * max_steps)
