"""Options of the optimizer and the schedule that a user changes between a checkpoint and the run that continues it."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    ConstantLR,
    CosineAnnealingLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    SequentialLR,
)

from hydet.engine import Callback, load_checkpoint, parameter_groups
from hydet.engine.callbacks import Checkpoints
from hydet.engine.resumed_optimizer import match_memory_formats
from hydet.engine.schedules import constant, warmup_cosine, warmup_multistep

STEPS = 6
SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.01)
ADAMW = partial(torch.optim.AdamW, lr=0.01, weight_decay=0.1)
RMSPROP = partial(torch.optim.RMSprop, lr=0.01)


class Recorder(Callback):
    """Record the options with which each step updates the weights, and end the run after a step."""

    def __init__(self, last_step):
        self._last_step = last_step
        self.steps = []

    def on_gradients(self, trainer):
        groups = trainer.optimizer.param_groups
        self.steps.append([{key: g[key] for key in g if key not in ("params", "initial_lr")} for g in groups])

    def on_step_end(self, trainer):
        if trainer.step == self._last_step:
            trainer.request_stop()


@pytest.fixture
def train(tiny, tmp_path, capsys):
    """Return a function that trains in a folder, and returns the trainer, the options of its steps, and the changes."""

    def run(folder, *, last_step=STEPS, resume=False, **options):
        recorder = Recorder(last_step)
        options = {"optimizer": SGD, "scheduler": None, "max_steps": STEPS, **options}
        trainer = tiny.build_trainer(
            tmp_path / folder, callbacks=[recorder, Checkpoints(every=100)], **options
        )
        capsys.readouterr()
        trainer.fit(resume=resume)
        lines = capsys.readouterr().out.splitlines()
        return trainer, recorder.steps, [line for line in lines if line.startswith("resumed with")]

    return run


@pytest.fixture
def change(train):
    """Return a function that trains three steps with some options, and continues with others."""

    def run(first, second):
        train("cut", last_step=3, **first)
        return train("cut", resume="auto", **second)

    return run


def assert_same_weights(a, b):
    a, b = a.model.state_dict(), b.model.state_dict()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


OPTIONS = [
    (SGD, partial(SGD, lr=0.2), "optimizer.lr: 0.1 -> 0.2"),
    (SGD, partial(SGD, weight_decay=0.0), "optimizer.weight_decay: 0.01 -> 0.0"),
    (SGD, partial(SGD, momentum=0.5), "optimizer.momentum: 0.9 -> 0.5"),
    (partial(SGD, momentum=0), SGD, "optimizer.momentum: 0 -> 0.9"),
    (SGD, partial(SGD, nesterov=True), "optimizer.nesterov: false -> true"),
    (ADAMW, partial(ADAMW, betas=(0.8, 0.99)), "optimizer.betas: (0.9, 0.999) -> (0.8, 0.99)"),
    (ADAMW, partial(ADAMW, eps=1e-3), "optimizer.eps: 1e-08 -> 0.001"),
    (ADAMW, partial(ADAMW, amsgrad=True), "optimizer.amsgrad: false -> true"),
    (RMSPROP, partial(RMSPROP, centered=True), "optimizer.centered: false -> true"),
    (RMSPROP, partial(RMSPROP, momentum=0.9), "optimizer.momentum: 0 -> 0.9"),
]


@pytest.mark.parametrize(("first", "second", "line"), OPTIONS, ids=[line for _, _, line in OPTIONS])
@pytest.mark.parametrize("scheduler", [None, partial(constant, warmup_steps=2)])
def test_changed_options_apply_and_are_named(train, change, first, second, line, scheduler):
    trainer, steps, lines = change(
        {"optimizer": first, "scheduler": scheduler}, {"optimizer": second, "scheduler": scheduler}
    )
    assert lines == [f"resumed with {line}"]
    _, expected, _ = train("whole", optimizer=second, scheduler=scheduler)
    assert steps == expected[3:]
    stored = load_checkpoint(trainer.output_dir).training_state()
    groups = stored["settings"]["groups"]
    assert [g["options"] for g in groups] != [] and stored["optimizer"]["param_groups"][0]["lr"] == steps[0][
        0
    ]["lr"]


def test_unchanged_options_continue_exactly(train, change):
    options = {"optimizer": ADAMW, "scheduler": partial(warmup_cosine, max_steps=STEPS, warmup_steps=2)}
    trainer, _, lines = change(options, options)
    assert lines == []
    whole, _, _ = train("whole", **options)
    assert_same_weights(trainer, whole)


def test_the_state_follows_weights_that_are_stored_channels_last():
    torch.manual_seed(0)
    exact, fast = nn.Conv2d(4, 8, 3), nn.Conv2d(4, 8, 3)
    fast.load_state_dict(exact.state_dict())
    fast.to(memory_format=torch.channels_last)
    x, before, after = torch.randn(2, 4, 6, 6), *(torch.optim.AdamW(m.parameters()) for m in (exact, fast))
    exact(x).square().sum().backward()
    before.step()
    fast.load_state_dict(exact.state_dict())
    after.load_state_dict(copy.deepcopy(before.state_dict()))
    after.param_groups[0]["fused"] = True
    match_memory_formats(after)
    for model, optimizer in ((exact, before), (fast, after)):
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
    torch.testing.assert_close(fast.weight, exact.weight)


def test_an_option_that_training_changed_is_restored(train, change, tiny, tmp_path):
    """A value that a callback changed is no change of the user."""

    class Decay(Callback):
        def on_step_end(self, trainer):
            for group in trainer.optimizer.param_groups:
                group["weight_decay"] *= 0.5

    def build(last_step, optimizer):
        callbacks = [Decay(), Recorder(last_step), Checkpoints(every=100)]
        return tiny.build_trainer(tmp_path, optimizer=optimizer, scheduler=None, callbacks=callbacks)

    build(3, SGD).fit()
    rest = build(STEPS, partial(SGD, lr=0.2))
    rest.fit(resume="auto")
    assert rest.optimizer.param_groups[0]["weight_decay"] == pytest.approx(0.01 * 0.5**STEPS)
    assert rest.optimizer.param_groups[0]["lr"] == 0.2


def sequential(optimizer, *, total=4):
    parts = [LinearLR(optimizer, start_factor=0.1, total_iters=2), CosineAnnealingLR(optimizer, T_max=total)]
    return SequentialLR(optimizer, parts, milestones=[2])


def chained(optimizer, *, gamma=0.9):
    parts = [ConstantLR(optimizer, total_iters=2), ExponentialLR(optimizer, gamma=gamma)]
    return ChainedScheduler(parts, optimizer=optimizer)


def one_cycle(optimizer, *, max_lr=1.0):
    return OneCycleLR(optimizer, max_lr=max_lr, total_steps=STEPS + 1)


MULTISTEP = partial(warmup_multistep, milestones=[4], warmup_steps=2)
COSINE = partial(warmup_cosine, max_steps=STEPS, warmup_steps=2)
TORCH_MULTISTEP = partial(MultiStepLR, milestones=[2, 5])
SCHEDULES = [
    (MULTISTEP, partial(MULTISTEP, milestones=[2]), "schedule.milestones: [4] -> [2]"),
    (MULTISTEP, partial(MULTISTEP, gamma=0.5), "schedule.gamma: 0.1 -> 0.5"),
    (MULTISTEP, partial(MULTISTEP, warmup_steps=5), "schedule.warmup_steps: 2 -> 5"),
    (COSINE, partial(COSINE, max_steps=12), "schedule.max_steps: 6 -> 12"),
    (COSINE, partial(COSINE, final_factor=0.5), "schedule.final_factor: 0.0 -> 0.5"),
    (partial(constant, warmup_steps=5), constant, "schedule.warmup_steps: 5 -> 0"),
    (COSINE, MULTISTEP, "schedule.milestones: null -> [4]"),
    (TORCH_MULTISTEP, partial(TORCH_MULTISTEP, gamma=0.5), "schedule.gamma: 0.1 -> 0.5"),
    (TORCH_MULTISTEP, partial(TORCH_MULTISTEP, milestones=[4]), "schedule.milestones"),
    (partial(CosineAnnealingLR, T_max=6), partial(CosineAnnealingLR, T_max=9), "schedule.T_max: 6 -> 9"),
    (sequential, partial(sequential, total=9), "schedule"),
    (chained, partial(chained, gamma=0.5), "ChainedScheduler with other arguments"),
    (one_cycle, partial(one_cycle, max_lr=2.0), "optimizer.max_lr: 1.0 -> 2.0"),
    (COSINE, None, "schedule: hydet.engine.schedules.FactorSchedule -> null"),
    (None, COSINE, "schedule: null -> hydet.engine.schedules.FactorSchedule"),
    (COSINE, TORCH_MULTISTEP, "-> torch.optim.lr_scheduler.MultiStepLR"),
]


@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")  # from SequentialLR of torch
@pytest.mark.parametrize(("first", "second", "line"), SCHEDULES, ids=[line for _, _, line in SCHEDULES])
@pytest.mark.parametrize("optimizer", [SGD, partial(SGD, lr=0.3)], ids=["same rate", "other rate"])
def test_changed_schedules_apply_and_are_named(train, change, first, second, line, optimizer):
    _, steps, lines = change({"scheduler": first}, {"scheduler": second, "optimizer": optimizer})
    assert any(line in text for text in lines), lines
    _, expected, _ = train("whole", scheduler=second, optimizer=optimizer)
    assert steps == expected[3:]


@pytest.mark.parametrize(
    "scheduler", [COSINE, TORCH_MULTISTEP, one_cycle, partial(LambdaLR, lr_lambda=lambda n: 0.9**n)]
)
def test_a_changed_rate_applies_under_every_schedule(train, change, scheduler):
    optimizer = partial(SGD, lr=0.3)
    trainer, steps, lines = change({"scheduler": scheduler}, {"scheduler": scheduler, "optimizer": optimizer})
    _, expected, _ = train("whole", scheduler=scheduler, optimizer=optimizer)
    assert steps == expected[3:]
    if scheduler is not one_cycle:  # whose rates do not depend on that of the optimizer
        assert lines == ["resumed with optimizer.lr: 0.1 -> 0.3"]
        assert trainer.scheduler.base_lrs == [0.3, 0.3]


def test_functions_that_changed(train, change):
    """Checkpoints hold no functions, so their results are compared."""
    first, second = (partial(LambdaLR, lr_lambda=lambda n, base=base: base**n) for base in (0.9, 0.5))
    _, steps, lines = change({"scheduler": first}, {"scheduler": second})
    _, expected, _ = train("whole", scheduler=second)
    assert steps == expected[3:]
    assert len(lines) == 1 and lines[0].startswith("resumed with learning rate: 0.0729")


def test_the_rate_of_one_group(train, change):
    """The rates of groups with other factors follow; the line names that of the optimizer."""
    groups = {"groups": partial(parameter_groups, bias_lr_factor=2.0)}
    _, steps, lines = change(groups, {**groups, "optimizer": partial(SGD, lr=0.2)})
    assert {group["lr"] for group in steps[0]} == {0.2, 0.4}
    assert lines == ["resumed with optimizer.lr: 0.1 -> 0.2"]


def test_weight_decay_of_norms(train, change):
    _, steps, lines = change({}, {"groups": partial(parameter_groups, norm_weight_decay=0.3)})
    assert [group["weight_decay"] for group in steps[0]] == [0.01, 0.3]
    assert lines == ["resumed with optimizer.weight_decay: 0.0 -> 0.3"]


def test_other_parameter_groups_keep_the_state_of_each_parameter(train, change, tiny):
    _, steps, lines = change(
        {"scheduler": COSINE},
        {
            "scheduler": COSINE,
            "groups": partial(parameter_groups, bias_lr_factor=2.0, norm_weight_decay=None),
        },
    )
    assert [round(g["lr"] / steps[0][0]["lr"]) for g in steps[0]] == [1, 2]
    assert any("parameter groups: 2 -> 2 with other parameters" in line for line in lines)
    # The same run, in which nothing but the order of the groups differs, is equal step by step.
    names = [name for name, _ in tiny.Model().named_parameters()]

    def reordered(model):
        parameters = dict(model.named_parameters())
        return [{"params": [parameters[name]], "lr_factor": 1.0} for name in reversed(names)]

    def in_order(model):
        return [{"params": list(model.parameters()), "lr_factor": 1.0}]

    train("plain", last_step=3, groups=in_order)
    rest, _, _ = train("plain", resume="auto", groups=reordered)
    whole, _, _ = train("whole", groups=in_order)
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(rest.model.state_dict()[name], value)


def test_parameters_that_were_frozen_before_start_without_a_state(train, tiny):
    frozen = tiny.Model()
    frozen.head.bias.requires_grad_(False)
    train("cut", last_step=3, model=frozen, optimizer=ADAMW)
    rest, _, lines = train("cut", resume="auto", optimizer=ADAMW)
    assert lines == ["resumed with trained parameters: 5 -> 6"]
    assert int(rest.optimizer.state[rest.model.head.bias]["step"]) == 3
    assert int(rest.optimizer.state[rest.model.head.weight]["step"]) == 6


def test_another_optimizer_is_refused(train):
    train("cut", last_step=3)
    for optimizer in (ADAMW, partial(torch.optim.Adam, lr=0.1)):
        with pytest.raises(
            ValueError, match=r"cannot resume from .*step_00000003.*AdamW? instead of .*SGD.*init_from="
        ):
            train("cut", resume="auto", optimizer=optimizer)


def test_parameters_outside_the_model(train):
    """An optimizer that the user built may hold any parameter."""

    def build(model):
        extra = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
        return [
            {"params": [*model.parameters(), extra[0]], "lr_factor": 1.0},
            {"params": extra[1:], "lr_factor": 1.0},
        ]

    train("cut", last_step=3, groups=build)
    trainer, _, lines = train("cut", resume="auto", groups=build)
    assert lines == [] and trainer.step == STEPS
