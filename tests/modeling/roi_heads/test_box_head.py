import pytest
import torch
from torch import nn

from hydet.layers import ShapeSpec
from hydet.modeling import FastRCNNConvFCHead

SHAPE = ShapeSpec(channels=4, height=3, width=5)


@pytest.mark.parametrize("count", [0, 1, 6])
@pytest.mark.parametrize(("convs", "fcs"), [([8], []), ([], [7]), ([8, 8], [9, 7])])
def test_output_shape_matches_the_output(count, convs, fcs):
    head = FastRCNNConvFCHead(input_shape=SHAPE, conv_dims=convs, fc_dims=fcs)
    spec = head.output_shape
    out = head(torch.randn(count, 4, 3, 5))
    expected = (spec.channels,) if fcs else (spec.channels, spec.height, spec.width)
    assert out.shape == (count, *expected)


def test_convolutions_with_a_norm_have_no_bias():
    head = FastRCNNConvFCHead(input_shape=SHAPE, conv_dims=[8], fc_dims=[6], conv_norm="BN")
    assert "conv1.bias" not in head.state_dict() and "conv1.norm.weight" in head.state_dict()
    head = FastRCNNConvFCHead(input_shape=SHAPE, conv_dims=[8], fc_dims=[6], conv_norm=nn.BatchNorm2d)
    assert isinstance(head.conv1.norm, nn.BatchNorm2d)


def test_invalid_arguments_raise():
    with pytest.raises(ValueError, match="at least one"):
        FastRCNNConvFCHead(input_shape=SHAPE, conv_dims=[], fc_dims=[])
    with pytest.raises(ValueError, match="size"):
        FastRCNNConvFCHead(input_shape=ShapeSpec(channels=4), conv_dims=[], fc_dims=[3])
