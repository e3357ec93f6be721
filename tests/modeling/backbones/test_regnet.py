import pytest
import torch
from torch import nn

from hydet.layers import FrozenBatchNorm2d
from hydet.modeling import RegNet, ResBottleneckBlock, SimpleStem
from hydet.modeling.backbones.regnet import fit_to_groups, quantized_widths


def published(**options):
    with torch.device("meta"):
        return RegNet(stem_class=SimpleStem, stem_width=32, block_class=ResBottleneckBlock, **options)


def test_widths_and_depths_of_published_regnet():
    """RegNetX-4GF of Radosavovic et al. 2020, table in the appendix."""
    net = published(depth=23, w_a=38.65, w_0=96, w_m=2.43, group_width=40)
    assert [(len(stage), stage[0].out_channels) for stage in net.stages] == [
        (2, 80),
        (5, 240),
        (14, 560),
        (2, 1360),
    ]
    assert list(net.output_shape()) == ["s4"] and net.output_shape()["s4"].stride == 32


@pytest.mark.parametrize("ratio", [0.25, 0.5, 1.0, 1.5, 2, 2.0, 4])
@pytest.mark.parametrize("group_width", [1, 8, 24])
def test_fitted_bottleneck_is_multiple_of_group_width(ratio, group_width):
    for width in range(8, 200, 8):
        fitted, group = fit_to_groups(width, group_width, ratio)
        assert fitted >= 1 and round(fitted * ratio) % group == 0 and group <= group_width


@pytest.mark.parametrize("wrong", [{"w_m": 1.0}, {"w_0": 20}, {"w_a": -1.0}, {"depth": 0}])
def test_invalid_width_parameters_raise(wrong):
    with pytest.raises(ValueError, match="RegNet needs"):
        quantized_widths(**({"depth": 4, "w_a": 8.0, "w_0": 16, "w_m": 2.0} | wrong))


def test_freeze_at_and_in_channels():
    net = published(depth=4, w_a=16.0, w_0=16, w_m=2.0, group_width=8, freeze_at=2, in_channels=1)
    assert net.stem.conv.in_channels == 1
    assert not any(p.requires_grad for p in [*net.stem.parameters(), *net.s1.parameters()])
    assert isinstance(net.s1.b1.f.a_bn, FrozenBatchNorm2d) and isinstance(net.s2.b1.f.a_bn, nn.BatchNorm2d)
    assert all(p.requires_grad for p in net.s2.parameters())
