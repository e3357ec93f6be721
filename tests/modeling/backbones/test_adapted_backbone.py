import pytest
import torch
from torch import nn

from hydet.modeling.backbones.adapted_backbone import AdaptedBackbone, names_from_strides


class Adapter(AdaptedBackbone):
    def forward(self, x):
        return {"x": self.model(x)}


def make_model():
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout())


def test_frozen_network_stays_in_evaluation_mode_without_gradients():
    backbone = Adapter(model=make_model(), frozen=True)
    backbone.train()
    assert backbone.training and not any(m.training for m in backbone.model.modules())
    assert not any(p.requires_grad for p in backbone.parameters())


def test_freeze_norm_freezes_batch_norms_only():
    backbone = Adapter(model=make_model(), freeze_norm=True).train()
    conv, norm, dropout = backbone.model
    assert conv.training and dropout.training and not norm.training
    assert conv.weight.requires_grad and not norm.weight.requires_grad
    before = norm.running_mean.clone()
    backbone(torch.randn(2, 3, 4, 4))
    assert torch.equal(norm.running_mean, before)


def test_size_constraints():
    backbone = Adapter(model=make_model(), size_divisibility=32, square_pad=64)
    assert backbone.size_divisibility == 32 and backbone.padding_constraints == {"square_size": 64}
    assert Adapter(model=make_model()).padding_constraints == {}


@pytest.mark.parametrize(
    ("strides", "names"),
    [
        ([4, 8, 16], ["res2", "res3", "res4"]),
        ([1, 2], ["res0", "res1"]),
        ([16, 16], ["feat0", "feat1"]),
        ([7, 14], ["feat0", "feat1"]),
    ],
)
def test_names_from_strides(strides, names):
    assert names_from_strides(strides) == names
