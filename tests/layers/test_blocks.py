import torch
from torch import nn

from hydet.layers import CNNBlockBase, Conv2d, DepthwiseSeparableConv2d, FrozenBatchNorm2d


class Block(CNNBlockBase):
    def __init__(self):
        super().__init__(in_channels=3, out_channels=4, stride=1)
        self.conv = Conv2d(3, 4, 1, norm=nn.BatchNorm2d(4))
        self.group = nn.GroupNorm(2, 4)


def test_freeze_disables_gradients_and_statistics():
    block = Block()
    assert block.freeze() is block
    assert isinstance(block.conv.norm, FrozenBatchNorm2d) and isinstance(block.group, nn.GroupNorm)
    assert not any(p.requires_grad for p in block.parameters())


def test_depthwise_separable_conv_has_two_convolutions():
    layer = DepthwiseSeparableConv2d(in_channels=4, out_channels=6, kernel_size=5, padding=2, norm2="BN")
    assert layer.depthwise.weight.shape == (4, 1, 5, 5) and layer.depthwise.bias is not None
    assert layer.pointwise.weight.shape == (6, 4, 1, 1) and layer.pointwise.bias is None
    assert layer(torch.randn(2, 4, 7, 9)).shape == (2, 6, 7, 9)
