"""Learning-rate schedules: a linear warm-up, then steps or a cosine.

Each schedule depends on the step number alone, so a resumed run needs only that number. The warm-up multiplies the factor
of the schedule, so that a milestone inside the warm-up does not lower the rates before it.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from .protocols import StateDict

__all__ = [
    "FactorSchedule",
    "constant",
    "limit_warmup",
    "scale_lr",
    "warmup_cosine",
    "warmup_multistep",
    "with_warmup",
]


class FactorSchedule(LambdaLR):
    """A learning rate that is the optimizer's times a factor of the step, with the settings of that factor.

    ``state_dict`` leaves the settings out: a schedule that loads the state of another one keeps its own settings.

    Args:
        optimizer: optimizer whose learning rates are multiplied.
        factor: function from the number of steps done to a factor.
        settings: numbers and lists of numbers that determine the factor, by name.
    """

    def __init__(
        self, optimizer: Optimizer, *, factor: Callable[[int], float], settings: Mapping[str, object]
    ) -> None:
        self.settings = dict(settings)
        super().__init__(optimizer, factor)

    def state_dict(self) -> StateDict:
        """Return the step and the learning rates."""
        return {key: value for key, value in super().state_dict().items() if key != "settings"}


def scale_lr(lr: float, batch_size: int, reference_batch: int = 16) -> float:
    """Scale a learning rate that suits ``reference_batch`` images per step to ``batch_size`` images per step.

    The mean gradient of a k times larger batch has k times less variance, so a k times larger step is as stable.

    Raises:
        ValueError: if a batch size is not positive.

    Source: the linear scaling rule, Goyal et al. 2017 (arXiv:1706.02677), section 2.1.
    """
    if batch_size < 1 or reference_batch < 1:
        raise ValueError(f"batch sizes must be positive, got {batch_size} and {reference_batch}")
    return lr * batch_size / reference_batch


def constant(
    optimizer: Optimizer,
    *,
    warmup_steps: int | float = 0,
    warmup_factor: float = 0.001,
    max_warmup_fraction: float = 1.0,
    max_steps: int | None = None,
) -> LambdaLR:
    """Keep the optimizer's learning rate after a linear warm-up.

    Args:
        optimizer: optimizer whose learning rates apply after the warm-up.
        warmup_steps: number of steps of the warm-up, or a fraction of ``max_steps``.
        warmup_factor: learning rate of the first step, relative to the full one.
        max_warmup_fraction: see ``limit_warmup``.
        max_steps: number of steps of the run; needed for fractions and for ``max_warmup_fraction``.
    """
    warmup = limit_warmup(warmup_steps, max_warmup_fraction=max_warmup_fraction, max_steps=max_steps)
    return FactorSchedule(
        optimizer,
        factor=with_warmup(lambda step: 1.0, warmup, warmup_factor),
        settings={"warmup_steps": warmup, "warmup_factor": warmup_factor},
    )


def warmup_multistep(
    optimizer: Optimizer,
    *,
    milestones: Sequence[int | float],
    gamma: float = 0.1,
    warmup_steps: int | float = 1000,
    warmup_factor: float = 0.001,
    max_warmup_fraction: float = 1.0,
    max_steps: int | None = None,
) -> LambdaLR:
    """Reduce the learning rate at each milestone, after a linear warm-up.

    Args:
        optimizer: optimizer whose learning rates apply between the warm-up and the first milestone.
        milestones: increasing step numbers, or increasing fractions of ``max_steps`` between 0 and 1.
        gamma: factor of the learning rate at each milestone.
        warmup_steps: number of steps, or a fraction of ``max_steps``.
        warmup_factor: learning rate of the first step, relative to the full one.
        max_warmup_fraction: see ``limit_warmup``.
        max_steps: number of steps of the run; needed for fractions and for ``max_warmup_fraction``.

    Raises:
        ValueError: if milestones do not increase, or fractions are given without ``max_steps``.
    """
    steps = [_to_steps("milestones", m, max_steps) for m in milestones]
    if any(a >= b for a, b in pairwise(milestones)):
        raise ValueError(f"milestones must increase, got {list(milestones)}")
    warmup = limit_warmup(warmup_steps, max_warmup_fraction=max_warmup_fraction, max_steps=max_steps)
    return FactorSchedule(
        optimizer,
        factor=with_warmup(lambda step: gamma ** bisect_right(steps, step), warmup, warmup_factor),
        settings={
            "milestones": steps,
            "gamma": gamma,
            "warmup_steps": warmup,
            "warmup_factor": warmup_factor,
        },
    )


def warmup_cosine(
    optimizer: Optimizer,
    *,
    max_steps: int,
    warmup_steps: int | float = 1000,
    warmup_factor: float = 0.001,
    max_warmup_fraction: float = 1.0,
    final_factor: float = 0.0,
) -> LambdaLR:
    """Reduce the learning rate along half a cosine over ``max_steps``, after a linear warm-up.

    Args:
        optimizer: optimizer whose learning rates are the start of the cosine.
        max_steps: number of steps of the run, including the warm-up.
        warmup_steps: number of steps, or a fraction of ``max_steps``.
        warmup_factor: learning rate of the first step, relative to the full one.
        max_warmup_fraction: see ``limit_warmup``.
        final_factor: learning rate of the last step, relative to the full one.

    Raises:
        ValueError: if ``max_steps`` is not positive.

    Source: Loshchilov and Hutter 2017 (arXiv:1608.03983), section 3, without restarts.
    """
    if max_steps < 1:
        raise ValueError(f"max_steps must be at least 1, got {max_steps}")

    def cosine(step: float) -> float:
        progress = min(step / max_steps, 1.0)
        return final_factor + (1 - final_factor) * 0.5 * (1 + math.cos(math.pi * progress))

    warmup = limit_warmup(warmup_steps, max_warmup_fraction=max_warmup_fraction, max_steps=max_steps)
    return FactorSchedule(
        optimizer,
        factor=with_warmup(cosine, warmup, warmup_factor),
        settings={
            "max_steps": max_steps,
            "final_factor": final_factor,
            "warmup_steps": warmup,
            "warmup_factor": warmup_factor,
        },
    )


def limit_warmup(
    warmup_steps: int | float, *, max_warmup_fraction: float = 1.0, max_steps: int | None = None
) -> int:
    """Return the number of warm-up steps, shortened for a short run.

    A warm-up that suits a run of 90,000 steps would fill a run of 1,000 steps, which then never trains at its full rate.

    Args:
        warmup_steps: number of steps, or a fraction of ``max_steps``, which is never shortened.
        max_warmup_fraction: longest warm-up, as a fraction of ``max_steps``.
        max_steps: number of steps of the run; None leaves the warm-up as it is.

    Raises:
        ValueError: if a number is out of range, or a fraction is given without ``max_steps``.
    """
    if not 0 <= max_warmup_fraction <= 1:
        raise ValueError(f"max_warmup_fraction must lie in [0, 1], got {max_warmup_fraction}")
    steps = _to_steps("warmup_steps", warmup_steps, max_steps)
    if max_steps is None or isinstance(warmup_steps, float):
        return steps
    return min(steps, math.ceil(max_warmup_fraction * max_steps))


def with_warmup(
    schedule: Callable[[int], float], warmup_steps: int, warmup_factor: float
) -> Callable[[int], float]:
    """Multiply the first factors of a schedule by a linear warm-up from ``warmup_factor`` to 1.

    The first gradients of a new head are large and would otherwise push pretrained weights far away (Goyal et al. 2017,
    section 2.2).

    Args:
        schedule: function from a step to a factor of the learning rate.
        warmup_steps: number of steps of the warm-up.
        warmup_factor: factor of the first step, relative to the schedule.

    Raises:
        ValueError: if a number is out of range.
    """
    if warmup_steps < 0:
        raise ValueError(f"warmup_steps must not be negative, got {warmup_steps}")
    if not 0 <= warmup_factor <= 1:
        raise ValueError(f"warmup_factor must lie in [0, 1], got {warmup_factor}")

    def factor(step: int) -> float:
        if step >= warmup_steps:
            return schedule(step)
        return schedule(step) * (warmup_factor + (1 - warmup_factor) * step / warmup_steps)

    return factor


def _to_steps(name: str, value: int | float, max_steps: int | None) -> int:
    """Return a number of steps, from a number of steps or a fraction of the run."""
    if isinstance(value, bool) or value < 0:
        raise ValueError(f"{name} must not be negative, got {value}")
    if isinstance(value, int):
        return value
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be whole numbers of steps or fractions between 0 and 1, got {value}")
    if max_steps is None:
        raise ValueError(f"{name}={value} is a fraction of the run, which needs max_steps")
    return round(value * max_steps)
