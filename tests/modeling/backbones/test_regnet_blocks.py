import pytest
import torch
from torch import nn

from hydet.modeling import ResBasicBlock, ResBottleneckBlock, ResStem, SimpleStem, VanillaBlock
from hydet.modeling.backbones.regnet_blocks import SqueezeExcitation


@pytest.mark.parametrize(("stem", "size"), [(ResStem, (9, 10)), (SimpleStem, (17, 20))])
def test_stem_stride_is_the_ratio_of_sizes_rounded_up(stem, size):
    made = stem(in_channels=3, out_channels=4)
    assert made(torch.randn(2, 3, 33, 40)).shape == (2, 4, *size)
    assert size[1] == 40 // made.stride


@pytest.mark.parametrize("block", [VanillaBlock, ResBasicBlock, ResBottleneckBlock])
def test_block_stride_and_channels(block):
    made = block(in_channels=4, out_channels=8, stride=2)
    assert made(torch.randn(2, 4, 9, 12)).shape == (2, 8, 5, 6)
    assert (made.in_channels, made.out_channels, made.stride) == (4, 8, 2)


@pytest.mark.parametrize("block", [ResBasicBlock, ResBottleneckBlock])
@pytest.mark.parametrize(("channels", "stride", "projects"), [(8, 1, False), (4, 1, True), (8, 2, True)])
def test_shortcut_is_a_projection_only_if_the_shape_changes(block, channels, stride, projects):
    made = block(in_channels=channels, out_channels=8, stride=stride)
    assert (made.proj is not None) == projects


@pytest.mark.parametrize("block", [ResBasicBlock, ResBottleneckBlock])
def test_residual_block_adds_its_input(block):
    made = block(in_channels=4, out_channels=4, stride=1, activation_class=nn.Identity).eval()
    last_norm = made.f.b_bn if block is ResBasicBlock else made.f.c_bn
    nn.init.zeros_(last_norm.weight)
    x = torch.randn(1, 4, 5, 5)
    torch.testing.assert_close(made(x), x)


def test_bottleneck_sizes():
    block = ResBottleneckBlock(
        in_channels=16, out_channels=32, stride=1, bottleneck_ratio=0.5, group_width=4, se_ratio=0.25
    )
    assert block.f.b.out_channels == 16 and block.f.b.groups == 4
    assert block.f.se.f_ex[0].out_channels == 4  # a quarter of the input of the block
    assert ResBottleneckBlock(in_channels=16, out_channels=32, stride=1).f.se is None


def test_bottleneck_that_is_no_multiple_of_the_group_width_raises():
    with pytest.raises(ValueError, match=r"a bottleneck of 12 channels .* not a multiple of group_width 8"):
        ResBottleneckBlock(in_channels=12, out_channels=12, stride=1, group_width=8)


def test_squeeze_excitation_scales_whole_channels_by_less_than_one():
    x = torch.rand(2, 4, 5, 5) + 0.1
    scale = SqueezeExcitation(channels=4, squeezed_channels=2)(x) / x
    torch.testing.assert_close(scale, scale[:, :, :1, :1].expand_as(scale))
    assert (scale > 0).all() and (scale < 1).all()
