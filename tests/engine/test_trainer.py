from functools import partial

import pytest
import torch
from torch import nn

from hydet.engine import Callback, Trainer
from hydet.engine.schedules import warmup_multistep


class Recorder(Callback):
    def __init__(self):
        self.events = []

    def on_fit_start(self, trainer):
        self.events.append(("start", trainer.step))

    def on_step_start(self, trainer):
        self.events.append(("step", trainer.step))

    def on_step_end(self, trainer):
        self.events.append(("stepped", trainer.step))

    def on_fit_end(self, trainer):
        self.events.append(("end", trainer.step))

    def on_exception(self, trainer, error):
        self.events.append(("exception", type(error)))


def weights_of(trainer):
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_hooks_run_in_order(tiny, tmp_path):
    recorder = Recorder()
    tiny.build_trainer(tmp_path, max_steps=2, callbacks=[recorder]).fit()
    assert recorder.events == [
        ("start", 0),
        ("step", 0),
        ("stepped", 1),
        ("step", 1),
        ("stepped", 2),
        ("end", 2),
    ]


def test_callbacks_can_be_named_and_switched_off(tiny, tmp_path):
    recorder = Recorder()
    trainer = tiny.build_trainer(tmp_path, max_steps=1, callbacks={"events": recorder, "images": None})
    trainer.fit()
    assert trainer.callbacks == [recorder] and recorder.events[-1] == ("end", 1)


def test_weights_depend_on_the_seed_only(tiny, tmp_path):
    runs = []
    for seed in (0, 0, 1):
        trainer = tiny.build_trainer(tmp_path, seed=seed)
        trainer.fit()
        runs.append(weights_of(trainer))
    assert_same(runs[0], runs[1])
    assert not torch.equal(runs[0]["head.weight"], runs[2]["head.weight"])


def test_the_loss_falls(tiny, tmp_path):
    model = tiny.Model()
    batch = [entry for part in tiny.make_batches(8) for entry in part]

    def error():
        model.eval().normalizer = 1.0
        return model.compute_losses(batch)["error"].item()

    before = error()
    loader = tiny.Loader(batch_size=8)
    tiny.build_trainer(tmp_path, model=model, loader=loader, max_steps=200, scheduler=None).fit()
    assert error() < 0.5 * before


def test_accumulation_equals_a_larger_batch(tiny, tmp_path):
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 1)

        def forward(self, batch):
            x, y = torch.stack([e["x"] for e in batch]), torch.stack([e["y"] for e in batch])
            return {"error": (self.layer(x)[:, 0] - y).square().mean()}

    ends = []
    for batch_size, accumulate in ((4, 1), (2, 2)):
        torch.manual_seed(0)
        trainer = tiny.build_trainer(
            tmp_path, model=Plain(), loader=tiny.Loader(batch_size=batch_size), accumulate=accumulate
        )
        trainer.fit()
        ends.append(trainer)
    torch.testing.assert_close(ends[0].model.layer.weight, ends[1].model.layer.weight)
    torch.testing.assert_close(ends[0].losses["error"], ends[1].losses["error"])
    assert ends[0].images == ends[1].images == 4


def test_clipping(tiny, tmp_path):
    start = tiny.build_trainer(tmp_path).model.head.bias.detach().clone()
    sgd = {"optimizer": partial(torch.optim.SGD, lr=1.0), "scheduler": None, "max_steps": 1}
    for option in ({"clip_norm": 1e-6}, {"clip_norm": None, "clip_value": 1e-6}):
        trainer = tiny.build_trainer(tmp_path, **sgd, **option)
        trainer.fit()
        moved = (trainer.model.head.bias.detach() - start).abs().max()
        assert 0 < moved < 1.01e-6 + 1e-7


def test_schedule_counts_optimizer_steps(tiny, tmp_path):
    schedule = partial(warmup_multistep, milestones=[2], warmup_steps=0)
    trainer = tiny.build_trainer(tmp_path, max_steps=3, accumulate=3, scheduler=schedule)
    trainer.fit()
    assert trainer.learning_rate == pytest.approx(0.001)
    assert trainer.train_loader.taken == 9


def test_bf16_keeps_weights_in_float32(tiny, tmp_path):
    trainer = tiny.build_trainer(tmp_path, precision="bf16")
    trainer.fit()
    assert all(p.dtype == torch.float32 for p in trainer.model.parameters())
    exact = tiny.build_trainer(tmp_path)
    exact.fit()
    assert not torch.equal(trainer.model.head.weight, exact.model.head.weight)


def test_a_loader_that_ends_is_started_again(tiny, tmp_path):
    trainer = tiny.build_trainer(tmp_path, loader=tiny.make_batches(2), max_steps=5)
    trainer.fit()
    assert trainer.step == 5


def test_an_empty_loader_is_an_error(tiny, tmp_path):
    with pytest.raises(ValueError, match="no batches"):
        tiny.build_trainer(tmp_path, loader=[]).fit()


def test_a_requested_stop_ends_the_run_after_the_step(tiny, tmp_path):
    class Stop(Callback):
        def on_step_end(self, trainer):
            if trainer.step == 3:
                trainer.request_stop()

    trainer = tiny.build_trainer(tmp_path, callbacks=[Stop()])
    trainer.fit()
    assert trainer.step == 3


def test_callbacks_are_notified_of_an_error(tiny, tmp_path):
    class Failing(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, batch):
            raise RuntimeError("broken")

    recorder = Recorder()
    with pytest.raises(RuntimeError, match="broken"):
        tiny.build_trainer(tmp_path, model=Failing(), callbacks=[recorder]).fit()
    assert recorder.events[-1] == ("exception", RuntimeError)


def test_an_error_in_cleanup_does_not_hide_the_first_error(tiny, tmp_path, capsys):
    class Clumsy(Callback):
        def on_step_end(self, trainer):
            raise RuntimeError("first")

        def on_exception(self, trainer, error):
            raise RuntimeError("second")

    recorder = Recorder()
    with pytest.raises(RuntimeError, match="first"):
        tiny.build_trainer(tmp_path, callbacks=[Clumsy(), recorder]).fit()
    assert recorder.events[-1] == ("exception", RuntimeError)
    assert "Clumsy failed while the run ended: second" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("returned", "message"),
    [([], "list"), ({}, "empty dict"), ({"a": 1.0}, "float"), ({"a": torch.ones(2)}, r"shape \(2,\)")],
)
def test_models_must_return_scalar_losses(tiny, tmp_path, returned, message):
    class Wrong(nn.Linear):
        def forward(self, batch):
            return returned

    with pytest.raises(TypeError, match=message):
        tiny.build_trainer(tmp_path, model=Wrong(1, 1)).fit()


@pytest.mark.parametrize(
    "options",
    [
        {"max_steps": 0},
        {"max_steps": 1.5},
        {"accumulate": 0},
        {"clip_norm": 0},
        {"clip_norm": float("nan")},
        {"clip_parameter_norm": -1},
        {"clip_value": -1.0},
        {"precision": "half"},
        {"precision": "fp16"},
        {"device": "tpu9"},
    ],
)
def test_numbers_out_of_range_are_rejected(tiny, tmp_path, options):
    with pytest.raises(ValueError):
        tiny.build_trainer(tmp_path, **options)


def test_wrong_types_are_rejected(tiny, tmp_path):
    with pytest.raises(TypeError, match="callbacks"):
        tiny.build_trainer(tmp_path, callbacks=[print])
    with pytest.raises(TypeError, match="optimizer factory"):
        tiny.build_trainer(tmp_path, optimizer=lambda groups: groups)


def test_an_optimizer_and_scheduler_can_be_given_instead_of_factories(tiny, tmp_path):
    model = tiny.Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    trainer = Trainer(
        model=model,
        train_loader=tiny.Loader(),
        optimizer=optimizer,
        scheduler=scheduler,
        max_steps=2,
        output_dir=tmp_path,
        device="cpu",
    )
    trainer.fit()
    assert trainer.learning_rate == pytest.approx(0.25)


class DividedByCount(nn.Module):
    """A model whose loss is divided by the number of samples of the whole step, which is complete at the end."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 1)
        self.steps = []

    def start_step(self, num_batches):
        self.steps.append(num_batches)
        self.count = 0

    def finish_step(self):
        return torch.tensor(7.0 / self.count)

    def forward(self, batch):
        self.count += len(batch)
        error = (self.layer(torch.stack([e["x"] for e in batch]))[:, 0] - 1).square().sum()
        return {"error": error * self.steps[-1] / 7.0}


@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_a_model_corrects_the_losses_and_gradients_of_a_whole_step(tiny, tmp_path, accumulate):
    model = DividedByCount()
    options = {"optimizer": partial(torch.optim.SGD, lr=0.1), "scheduler": None, "clip_norm": None}
    trainer = tiny.build_trainer(
        tmp_path,
        model=model,
        loader=tiny.Loader(batch_size=8 // accumulate),
        accumulate=accumulate,
        max_steps=1,
        **options,
    )
    x = torch.stack([entry["x"] for entry in next(iter(tiny.Loader(batch_size=8)))])
    expected = (model.layer(x)[:, 0] - 1).square().mean()
    (gradient,) = torch.autograd.grad(expected, model.layer.weight)
    before = model.layer.weight.detach().clone()
    trainer.fit()
    assert model.steps == [accumulate]
    torch.testing.assert_close(trainer.losses["error"], expected.detach())
    torch.testing.assert_close(before - model.layer.weight.detach(), 0.1 * gradient)
