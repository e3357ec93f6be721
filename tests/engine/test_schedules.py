import math
from functools import partial

import pytest
import torch

from hydet.engine.schedules import constant, limit_warmup, scale_lr, warmup_cosine, warmup_multistep


def rates(schedule, steps):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    scheduler = schedule(optimizer)
    rates_per_step = []
    for _ in range(steps):
        rates_per_step.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates_per_step


def test_multistep():
    rates_per_step = rates(
        partial(warmup_multistep, milestones=[6, 8], warmup_steps=4, warmup_factor=0.1), 10
    )
    expected = [0.2, 0.65, 1.1, 1.55, 2.0, 2.0, 0.2, 0.2, 0.02, 0.02]
    assert rates_per_step == pytest.approx(expected)


def test_fractions_of_the_run():
    a = partial(warmup_multistep, milestones=[0.6, 0.8], warmup_steps=0.4, max_steps=10)
    b = partial(warmup_multistep, milestones=[6, 8], warmup_steps=4)
    assert rates(a, 10) == rates(b, 10)


def test_cosine_continues_from_the_warm_up_and_ends_at_the_final_factor():
    rates_per_step = rates(partial(warmup_cosine, max_steps=10, warmup_steps=4, final_factor=0.1), 12)

    def cosine(t):
        return 2 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * t / 10)))

    assert rates_per_step[4:10] == pytest.approx([cosine(t) for t in range(4, 10)])
    assert rates_per_step[0] == pytest.approx(0.002) and rates_per_step[10] == rates_per_step[
        11
    ] == pytest.approx(0.2)
    assert rates_per_step[2] == pytest.approx(cosine(2) * (0.001 + 0.999 * 2 / 4))


@pytest.mark.parametrize("steps", [150, 1000])
def test_a_milestone_inside_the_warm_up_does_not_lower_the_rates_before_it(steps):
    schedule = partial(warmup_multistep, milestones=[0.6667, 0.8889], warmup_steps=1000, max_steps=steps)
    rates_per_step = rates(schedule, steps)
    assert max(rates_per_step) == pytest.approx(2.0 * (0.001 + 0.999 * (round(0.6667 * steps) - 1) / steps))
    assert rates_per_step[-1] == pytest.approx(2.0 * 0.01 * (0.001 + 0.999 * (steps - 1) / steps))


@pytest.mark.parametrize(
    "schedule",
    [
        partial(constant, max_steps=150),
        partial(warmup_cosine, max_steps=150),
        partial(warmup_multistep, milestones=[0.6667, 0.8889], max_steps=150),
    ],
)
def test_the_warm_up_of_a_short_run_is_shortened(schedule):
    rates_per_step = rates(partial(schedule, warmup_steps=1000, max_warmup_fraction=0.1), 150)
    assert max(rates_per_step) == pytest.approx(2.0, rel=0.03)
    assert rates_per_step.index(max(rates_per_step)) == 15


def test_fractions_and_runs_without_an_end_keep_their_warm_up():
    assert limit_warmup(0.4, max_warmup_fraction=0.1, max_steps=100) == 40
    assert limit_warmup(50, max_warmup_fraction=0.1) == 50
    assert limit_warmup(50, max_warmup_fraction=0.1, max_steps=1000) == 50
    assert limit_warmup(50, max_steps=20) == 20
    with pytest.raises(ValueError, match="max_warmup_fraction"):
        limit_warmup(50, max_warmup_fraction=1.5, max_steps=1000)


def test_constant_and_no_warm_up():
    assert rates(constant, 3) == [2.0] * 3
    assert rates(partial(constant, warmup_steps=2, warmup_factor=0.5), 3) == [1.0, 1.5, 2.0]


def test_every_group_keeps_its_ratio():
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": lr} for lr in (1.0, 0.1)]
    optimizer = torch.optim.SGD(groups)
    warmup_multistep(optimizer, milestones=[50], warmup_steps=10, warmup_factor=0.5)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.5, 0.05])


def test_scale_lr():
    assert scale_lr(0.02, 4) == pytest.approx(0.005)
    with pytest.raises(ValueError):
        scale_lr(0.02, 0)


@pytest.mark.parametrize(
    "schedule",
    [
        partial(warmup_multistep, milestones=[5, 5]),
        partial(warmup_multistep, milestones=[5, 3]),
        partial(warmup_multistep, milestones=[0.5]),
        partial(warmup_multistep, milestones=[1.5], max_steps=10),
        partial(warmup_multistep, milestones=[-1]),
        partial(warmup_cosine, max_steps=0),
        partial(constant, warmup_factor=2),
        partial(constant, warmup_steps=-1),
    ],
)
def test_invalid_arguments_are_rejected(schedule):
    with pytest.raises(ValueError):
        rates(schedule, 1)
