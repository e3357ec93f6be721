from functools import partial

import pytest
import torch
from torch import nn

from hydet.modeling import (
    FPN,
    LastLevelMaxPool,
    LastLevelP6P7,
    TimmBackbone,
    TorchvisionBackbone,
)


def set_to_identity(pyramid):
    """Set every convolution of ``pyramid`` to the identity."""
    with torch.no_grad():
        for conv in pyramid.modules():
            if isinstance(conv, nn.Conv2d):
                nn.init.dirac_(conv.weight)
                nn.init.zeros_(conv.bias)
    return pyramid


def test_channels_of_top_block_must_match_its_input():
    backbone = TorchvisionBackbone(model_name="mobilenet_v3_small")
    parts = {"bottom_up": backbone, "in_features": ["res4", "res5"], "out_channels": 8}
    right = backbone.output_shape()["res5"].channels
    FPN(**parts, top_block=LastLevelP6P7(in_channels=right, out_channels=8))
    FPN(**parts, top_block=LastLevelP6P7(in_channels=8, out_channels=8, in_feature="p5"))
    with pytest.raises(ValueError, match=rf"LastLevelP6P7 takes in_channels=2048, but 'res5' has {right}"):
        FPN(**parts, top_block=LastLevelP6P7(in_channels=2048, out_channels=8))


def test_error_for_plain_transformer_suggests_simple_feature_pyramid():
    pytest.importorskip("timm")
    with torch.device("meta"):
        backbone = TimmBackbone(model_name="vit_tiny_patch16_224")
        with pytest.raises(ValueError, match="all of stride 16: SimpleFeaturePyramid"):
            FPN(bottom_up=backbone, in_features=["res4"], out_channels=8)
        assert list(TimmBackbone(model_name="vit_tiny_patch16_224", out_indices=[-1]).output_shape()) == [
            "res4"
        ]


def test_sum_and_average_fusion_of_constant_images(pooling_backbone):
    images = torch.ones(1, 3, 16, 16)
    for fuse_type, expected in (("sum", [3.0, 2.0, 1.0]), ("avg", [1.0, 1.0, 1.0])):
        pyramid = FPN(
            bottom_up=pooling_backbone(a=2, b=4, c=8),
            in_features=["a", "b", "c"],
            out_channels=2,
            fuse_type=fuse_type,
        )
        output = set_to_identity(pyramid)(images)
        assert list(output) == ["p1", "p2", "p3"]
        assert [output[name].unique().item() for name in output] == expected


def test_input_size_need_not_be_divisible(pooling_backbone):
    pyramid = FPN(bottom_up=pooling_backbone(a=4, b=8, c=16), in_features=["a", "b", "c"], out_channels=2)
    output = pyramid(torch.randn(1, 3, 50, 77))
    assert [tuple(f.shape[2:]) for f in output.values()] == [(13, 20), (7, 10), (4, 5)]
    assert pyramid.size_divisibility == 16


@pytest.mark.parametrize("fuse_type", ["sum", "avg"])
@pytest.mark.parametrize("size", [(48, 80), (50, 77)])
def test_channels_last_inference_gives_the_same_pyramid(pooling_backbone, fuse_type, size):
    """It adds the coarser level into the laterals, without a copy."""
    pyramid = FPN(
        bottom_up=pooling_backbone(a=4, b=8, c=16),
        in_features=["a", "b", "c"],
        out_channels=2,
        fuse_type=fuse_type,
    )
    images = torch.randn(2, 3, *size)
    expected = pyramid(images)
    pyramid.to(memory_format=torch.channels_last)
    with torch.no_grad():
        actual = pyramid(images.to(memory_format=torch.channels_last))
    for name in expected:
        torch.testing.assert_close(actual[name], expected[name])


def test_top_blocks_add_coarser_levels(pooling_backbone):
    def pyramid(top_block):
        return FPN(
            bottom_up=pooling_backbone(a=4, b=8), in_features=["a", "b"], out_channels=2, top_block=top_block
        )

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


def test_convolutions_have_bias_only_without_norm(pooling_backbone):
    plain, normed = (
        FPN(bottom_up=pooling_backbone(a=4), in_features=["a"], out_channels=32, norm=norm)
        for norm in ("", "GN")
    )
    assert plain.fpn_lateral2.bias is not None and normed.fpn_lateral2.bias is None
    assert isinstance(normed.fpn_output2.norm, nn.GroupNorm)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"in_features": ["a", "z"]},
            r"FPN: in_features has \['z'\]; PoolingBackbone produces \['a', 'b', 'c'\]",
        ),
        ({"in_features": []}, "no name"),
        ({"in_features": ["a", "c"]}, r"twice the previous one; got \[4, 12\]"),
        ({"in_features": ["b", "a"]}, r"got \[8, 4\]"),
        ({"in_features": ["a"], "fuse_type": "mean"}, "'sum' or 'avg', got 'mean'"),
    ],
)
def test_invalid_arguments_raise(options, message, pooling_backbone):
    with pytest.raises(ValueError, match=message):
        FPN(bottom_up=pooling_backbone(a=4, b=8, c=12), out_channels=4, **options)


@pytest.mark.parametrize(("in_feature", "channels"), [("b", 2), ("p3", 8)])
def test_partial_top_block_gets_the_channels_of_its_input(in_feature, channels, pooling_backbone):
    class Downsample(nn.Module):
        num_levels = 1

        def __init__(self, *, in_channels, in_feature):
            super().__init__()
            self.in_channels, self.in_feature = in_channels, in_feature

        def forward(self, x):
            return [x[:, :, ::2, ::2]]

    top_block = partial(Downsample, in_feature=in_feature)
    pyramid = FPN(
        bottom_up=pooling_backbone(a=4, b=8), in_features=["a", "b"], out_channels=8, top_block=top_block
    )
    assert pyramid.top_block.in_channels == channels


def test_p7_can_be_computed_from_p6_without_activation():
    block, x = LastLevelP6P7(in_channels=2, out_channels=2, activate_p6=False), torch.randn(1, 2, 8, 8)
    p6, p7 = block(x)
    assert (p6 < 0).any()
    torch.testing.assert_close(p7, block.p7(p6))
