import os
import signal
from functools import partial

import pytest
import torch
from torch import nn

from hydet.distributed import all_gather
from hydet.engine import Callback, TrainingInterrupted, load_checkpoint, rank, world_size
from hydet.engine.callbacks import EMA, Checkpoints, Evaluation, JsonlLog, PreciseBatchNorm


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(rank())  # DDP must make the weights equal
        self.layer = nn.Linear(4, 1)

    def forward(self, batch):
        return self.compute_losses(batch)

    def compute_losses(self, batch):
        x, y = torch.stack([e["x"] for e in batch]), torch.stack([e["y"] for e in batch])
        return {"error": (self.layer(x)[:, 0] - y).square().mean()}

    def losses_and_inference(self, batch):
        return self.compute_losses(batch), [{"value": e["y"]} for e in batch]


def build(tiny, folder, callbacks=(), **options):
    loader = tiny.Loader(batch_size=4 // world_size(), rank=rank(), world_size=world_size())
    options = {"optimizer": partial(torch.optim.SGD, lr=0.05), "clip_norm": None, "max_steps": 4, **options}
    return tiny.build_trainer(folder, model=Plain(), loader=loader, callbacks=callbacks, **options)


def train(tiny, folder):
    trainer = build(tiny, folder, [JsonlLog(every=4), Checkpoints(every=2)])
    trainer.fit(resume="auto")
    return trainer.model.layer.weight.detach().tolist()


def test_two_processes_train_like_one_process_with_the_same_images(on_two_processes, tiny, tmp_path):
    first, second = on_two_processes(partial(train, tiny, tmp_path / "two"))
    assert first == second
    single = build(tiny, tmp_path / "one")
    single.fit()
    torch.testing.assert_close(torch.tensor(first), single.model.layer.weight.detach())
    assert load_checkpoint(tmp_path / "two").metadata["world_size"] == 2
    assert len(load_checkpoint(tmp_path / "two").training_state()["random"]) == 2


def train_half_then_rest(tiny, folder):
    build(tiny, folder, [Checkpoints(every=2)], max_steps=2).fit()
    return train(tiny, folder)


def test_two_processes_resume_exactly(on_two_processes, tiny, tmp_path):
    whole = on_two_processes(partial(train, tiny, tmp_path / "whole"))
    assert on_two_processes(partial(train_half_then_rest, tiny, tmp_path / "cut")) == whole


class SumOfAll:
    def reset(self):
        self.seen = []

    def update(self, inputs, outputs):
        self.seen.extend(float(o["value"]) for o in outputs)

    def compute(self):
        return {"sum": sum(sum(part) for part in all_gather(self.seen))}

    def tables(self):
        return []


def validate(tiny, folder):
    batches = tiny.make_batches(3)
    share = batches[rank() :: world_size()]
    trainer = build(tiny, folder, [Evaluation(every=4, loader=share, evaluators=SumOfAll())])
    trainer.fit()
    return trainer.metrics


def test_evaluation_merges_the_processes(on_two_processes, tiny, tmp_path):
    first, second = on_two_processes(partial(validate, tiny, tmp_path / "two"))
    assert first == second
    assert first == pytest.approx(validate(tiny, tmp_path / "one"), rel=1e-5)


class SignalOne(Callback):
    def on_step_start(self, trainer):
        if trainer.step == 1 and rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)


def interrupted(tiny, folder):
    trainer = build(tiny, folder, [SignalOne(), Checkpoints(every=100)])
    try:
        trainer.fit()
    except TrainingInterrupted as error:
        return error.code, trainer.step
    return None


def test_a_signal_to_one_process_stops_all_at_the_same_step(on_two_processes, tiny, tmp_path):
    assert on_two_processes(partial(interrupted, tiny, tmp_path)) == [(143, 2), (143, 2)]
    assert load_checkpoint(tmp_path).step == 2


class Normalized(Plain):
    """A model whose statistics differ between processes, until they are synchronized."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def compute_losses(self, batch):
        x, y = self.norm(torch.stack([e["x"] for e in batch])), torch.stack([e["y"] for e in batch])
        return {"error": (self.layer(x)[:, 0] - y).square().mean()}


class Watch(Evaluation):
    """Records the buffers that each evaluation uses."""

    def run(self, trainer):
        with trainer.evaluation_weights() as model:
            self.seen = [*getattr(self, "seen", []), buffers_of(model)]
        super().run(trainer)


def buffers_of(model):
    return {name: value.tolist() for name, value in model.named_buffers()}


def run_with_statistics(tiny, folder, max_steps=4, precise=None):
    ema, watch = EMA(), Watch(every=2, loader=tiny.make_batches(1), evaluators=SumOfAll())
    callbacks = [ema, precise, watch, Checkpoints(every=2)]
    loader = tiny.Loader(batch_size=2, rank=rank(), world_size=world_size())
    options = {"optimizer": partial(torch.optim.SGD, lr=0.05), "clip_norm": None}
    trainer = tiny.build_trainer(
        folder, model=Normalized(), loader=loader, callbacks=callbacks, max_steps=max_steps, **options
    )
    trainer.fit(resume="auto")
    average = {name: value.tolist() for name, value in ema.state_dict()["average"].items()}
    return {"seen": watch.seen, "end": buffers_of(trainer.model), "average": average}


def runs_with_statistics(tiny, folder):
    whole = run_with_statistics(tiny, folder / "whole")
    run_with_statistics(tiny, folder / "cut", max_steps=2)
    rest = run_with_statistics(tiny, folder / "cut")
    precise = run_with_statistics(tiny, folder / "precise", precise=PreciseBatchNorm(every=2, batches=2))
    return whole, rest, precise


def test_statistics_and_averages_agree_on_all_processes_and_resume_exactly(on_two_processes, tiny, tmp_path):
    results = on_two_processes(partial(runs_with_statistics, tiny, tmp_path))
    (whole, rest, precise), second = results
    assert second == (whole, rest, precise)
    assert rest == {**whole, "seen": whole["seen"][1:]}
    for name, folder in ((whole, "whole"), (precise, "precise")):
        weights = load_checkpoint(tmp_path / folder).weights()
        stored = {key: value.tolist() for key, value in weights.items() if key in name["end"]}
        assert stored == name["seen"][-1]
    following = tiny.Loader(batch_size=2)
    following.load_state_dict({"taken": 8})  # four steps of two processes
    batches = iter(following)
    x = torch.stack([entry["x"] for _ in range(4) for entry in next(batches)])
    torch.testing.assert_close(torch.tensor(precise["end"]["norm.running_mean"]), x.mean(0))
