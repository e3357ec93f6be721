"""A model, a loader and an evaluator that are small enough to train a hundred times."""

import os
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from hydet.engine import Trainer
from hydet.engine.schedules import warmup_cosine


class Samples(Dataset):
    """Samples by their position in the run, with one seed per sample, as in the real loader."""

    def __getitem__(self, position):
        generator = torch.Generator().manual_seed(1000 + position)
        x = torch.randn(4, generator=generator)
        return {
            "x": x,
            "y": x.sum() + 0.1 * torch.randn((), generator=generator),
            "file_name": f"{position}.jpg",
        }


class Loader:
    """An endless loader whose state counts the batches that its consumer received, like the training loader."""

    def __init__(self, batch_size=2, num_workers=0, rank=0, world_size=1):
        self.batch_size, self.num_workers = batch_size, num_workers
        self.rank, self.world_size = rank, world_size
        self.taken = 0

    def positions(self, start):
        while True:
            first = (start * self.world_size + self.rank) * self.batch_size
            yield list(range(first, first + self.batch_size))
            start += 1

    def __iter__(self):
        loader = DataLoader(
            Samples(), batch_sampler=self.positions(self.taken), num_workers=self.num_workers, collate_fn=list
        )
        for batch in loader:
            self.taken += 1
            yield batch

    def state_dict(self):
        return {"taken": self.taken}

    def load_state_dict(self, state):
        self.taken = state["taken"]


class Model(nn.Module):
    """A model that is hard to resume: dropout, batch statistics, and a number outside its state dict."""

    def __init__(self, num_classes=3):
        super().__init__()
        self.num_classes = num_classes
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3))
        self.head = nn.Linear(8, 1)
        self.normalizer = 1.0

    def forward(self, batch):
        return self.compute_losses(batch) if self.training else self.inference(batch)

    def _predict(self, batch):
        device = self.head.weight.device
        return self.head(self.body(torch.stack([e["x"] for e in batch]).to(device)))[:, 0]

    def compute_losses(self, batch):
        y = torch.stack([e["y"] for e in batch]).to(self.head.weight.device)
        error = (self._predict(batch) - y).square().mean()
        if self.training:
            self.normalizer = 0.9 * self.normalizer + 0.1 * float(error.detach())
        return {"error": error / max(self.normalizer, 0.1), "size": 1e-3 * self.head.weight.square().sum()}

    def inference(self, batch):
        return [{"value": v} for v in self._predict(batch)]

    def losses_and_inference(self, batch):
        return self.compute_losses(batch), self.inference(batch)

    def training_state(self):
        return {"normalizer": self.normalizer}

    def load_training_state(self, state):
        self.normalizer = state["normalizer"]


class Metric:
    """An evaluator that returns given values, or the mean prediction."""

    def __init__(self, values=None, name="quality"):
        self.values, self.name = values, name
        self.calls = 0

    def reset(self):
        self.outputs = []

    def update(self, inputs, outputs):
        self.outputs.extend(float(o["value"]) for o in outputs)

    def compute(self):
        self.calls += 1
        value = sum(self.outputs) / len(self.outputs) if self.values is None else self.values[self.calls - 1]
        return {self.name: value}

    def tables(self):
        return []


def make_batches(count=2):
    return [[{**Samples()[10_000 + 2 * i + j], "instances": None} for j in range(2)] for i in range(count)]


def build_trainer(output_dir, *, model=None, loader=None, max_steps=6, **options):
    torch.manual_seed(0)
    options = {
        "optimizer": partial(torch.optim.AdamW, lr=0.01, weight_decay=0.1),
        "scheduler": partial(warmup_cosine, max_steps=6, warmup_steps=2),
        "clip_norm": 1.0,
        "device": "cpu",
        **options,
    }
    return Trainer(
        model=model if model is not None else Model(),
        train_loader=loader if loader is not None else Loader(),
        max_steps=max_steps,
        output_dir=output_dir,
        **options,
    )


@pytest.fixture
def tiny():
    """Return the classes and functions of this file by name."""
    from types import SimpleNamespace

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    return SimpleNamespace(
        Model=Model, Loader=Loader, Metric=Metric, make_batches=make_batches, build_trainer=build_trainer
    )
