"""Pyramids: what they join, and what does not fit."""

import pytest
import torch
from torch import nn

from hydet.layers import ShapeSpec
from hydet.modeling import (
    FPN,
    Backbone,
    LastLevelMaxPool,
    LastLevelP6P7,
    SimpleFeaturePyramid,
)


class Steps(Backbone):
    """Average pooling to some strides; every map has two channels."""

    def __init__(self, **strides):
        super().__init__()
        self.strides = strides

    def output_shape(self):
        return {name: ShapeSpec(channels=2, stride=stride) for name, stride in self.strides.items()}

    def forward(self, x):
        return {n: nn.functional.avg_pool2d(x[:, :2], s, ceil_mode=True) for n, s in self.strides.items()}


def identity_(pyramid):
    """Every convolution passes its input on."""
    with torch.no_grad():
        for conv in pyramid.modules():
            if isinstance(conv, nn.Conv2d):
                nn.init.dirac_(conv.weight)
                nn.init.zeros_(conv.bias)
    return pyramid


def test_sum_and_average_of_constant_images():
    images = torch.ones(1, 3, 16, 16)
    for fuse_type, want in (("sum", [3.0, 2.0, 1.0]), ("avg", [1.0, 1.0, 1.0])):
        pyramid = FPN(
            bottom_up=Steps(a=2, b=4, c=8), in_features=["a", "b", "c"], out_channels=2, fuse_type=fuse_type
        )
        output = identity_(pyramid)(images)
        assert list(output) == ["p1", "p2", "p3"]
        assert [output[name].unique().item() for name in output] == want


def test_sizes_that_do_not_divide():
    pyramid = FPN(bottom_up=Steps(a=4, b=8, c=16), in_features=["a", "b", "c"], out_channels=2)
    output = pyramid(torch.randn(1, 3, 50, 77))
    assert [tuple(f.shape[2:]) for f in output.values()] == [(13, 20), (7, 10), (4, 5)]
    assert pyramid.size_divisibility == 16


def test_top_blocks():
    def pyramid(top_block):
        return FPN(bottom_up=Steps(a=4, b=8), in_features=["a", "b"], out_channels=2, top_block=top_block)

    pooled = pyramid(LastLevelMaxPool(in_feature="p3"))(torch.randn(1, 3, 64, 64))
    assert list(pooled) == ["p2", "p3", "p4"]
    torch.testing.assert_close(pooled["p4"], pooled["p3"][:, :, ::2, ::2])
    convolved = pyramid(LastLevelP6P7(in_channels=2, out_channels=2, in_feature="b"))
    assert {n: s.stride for n, s in convolved.output_shape().items()} == {
        "p2": 4,
        "p3": 8,
        "p4": 16,
        "p5": 32,
    }
    assert [f.shape[-1] for f in convolved(torch.randn(1, 3, 64, 64)).values()] == [16, 8, 4, 2]
    with pytest.raises(ValueError, match="reads 'p5'"):
        pyramid(LastLevelMaxPool())


def test_biases_only_without_norm():
    plain, normed = (
        FPN(bottom_up=Steps(a=4), in_features=["a"], out_channels=32, norm=norm) for norm in ("", "GN")
    )
    assert plain.fpn_lateral2.bias is not None and normed.fpn_lateral2.bias is None
    assert isinstance(normed.fpn_output2.norm, nn.GroupNorm)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_features": ["a", "z"]}, r"FPN: in_features has \['z'\]; Steps produces \['a', 'b', 'c'\]"),
        ({"in_features": []}, "no name"),
        ({"in_features": ["a", "c"]}, r"twice the previous one; got \[4, 12\]"),
        ({"in_features": ["b", "a"]}, r"got \[8, 4\]"),
        ({"in_features": ["a"], "fuse_type": "mean"}, "'sum' or 'avg', got 'mean'"),
    ],
)
def test_fpn_errors(options, message):
    with pytest.raises(ValueError, match=message):
        FPN(bottom_up=Steps(a=4, b=8, c=12), out_channels=4, **options)


def test_simple_pyramid_without_norm_at_all_scales():
    pyramid = SimpleFeaturePyramid(
        net=Steps(a=16), in_feature="a", out_channels=4, scale_factors=[2.0, 1.0, 0.5], norm="", square_pad=64
    )
    assert [f.shape[-1] for f in pyramid(torch.randn(1, 3, 64, 64)).values()] == [8, 4, 2]
    assert pyramid.size_divisibility == 32
    assert pyramid.padding_constraints == {"size_divisibility": 32, "square_size": 64}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_feature": "z", "scale_factors": [1.0]}, "no feature 'z'"),
        ({"in_feature": "a", "scale_factors": [8.0]}, "a scale factor must be 4, 2, 1 or 0.5, got 8"),
        ({"in_feature": "a", "scale_factors": [1.0, 2.0]}, "twice the previous one"),
    ],
)
def test_simple_pyramid_errors(options, message):
    with pytest.raises(ValueError, match=message):
        SimpleFeaturePyramid(net=Steps(a=16), out_channels=4, **options)
