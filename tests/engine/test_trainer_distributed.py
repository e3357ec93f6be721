import os
import signal
from functools import partial

import pytest
import torch
from torch import nn

from hydet.distributed import all_gather
from hydet.engine import Callback, TrainingInterrupted, load_checkpoint, rank, world_size
from hydet.engine.callbacks import Checkpoints, Evaluation, JsonlLog


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
