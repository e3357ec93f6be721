import math

import pytest
import torch
from torch import nn

from hydet.engine.callbacks import Checkpoints, NanGuard


class GivenLosses(nn.Module):
    def __init__(self, losses):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.losses = losses

    def forward(self, batch):
        return {name: self.weight * value for name, value in self.losses.items()}


def test_a_nan_loss_is_reported_with_files_before_the_weights_change(tiny, tmp_path):
    model = GivenLosses({"good": 1.0, "bad": math.nan})
    with pytest.raises(FloatingPointError, match=r"step 1: loss bad is nan; the batch: 0\.jpg, 1\.jpg"):
        tiny.build_trainer(tmp_path, model=model, callbacks=[NanGuard(), Checkpoints(every=1)]).fit()
    assert model.weight == 1
    assert not (tmp_path / "checkpoints").exists()


def test_nan_gradients_are_reported(tiny, tmp_path):
    class Steep(GivenLosses):
        def forward(self, batch):
            return {"steep": (self.weight - 1).abs().sqrt() + 1}  # infinite slope at the initial weight

    with pytest.raises(FloatingPointError, match=r"gradients.*0\.jpg"):
        tiny.build_trainer(tmp_path, model=Steep({}), callbacks=[NanGuard()]).fit()


def test_long_batches_are_shortened(tiny, tmp_path):
    loader = tiny.Loader(batch_size=10)
    model = GivenLosses({"bad": math.inf})
    with pytest.raises(FloatingPointError, match=r"loss bad is inf; .*7\.jpg and 2 more"):
        tiny.build_trainer(tmp_path, model=model, loader=loader, callbacks=[NanGuard()]).fit()
