import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hydet.layers import Conv2d, ConvTranspose2d, Linear, get_norm


def test_conv2d_applies_norm_then_activation():
    conv = Conv2d(3, 4, 3, padding=1, bias=False, norm=nn.BatchNorm2d(4), activation=F.relu).eval()
    nn.init.normal_(conv.norm.bias)
    x = torch.randn(2, 3, 5, 6)
    plain = F.conv2d(x, conv.weight, padding=1)
    torch.testing.assert_close(conv(x), conv.norm(plain).relu())
    assert set(conv.state_dict()) >= {"weight", "norm.weight"}


def test_conv2d_without_norm_and_activation_matches_torch():
    conv = Conv2d(3, 4, 3)
    assert set(conv.state_dict()) == {"weight", "bias"}
    torch.testing.assert_close(conv(torch.ones(1, 3, 5, 5)), nn.Conv2d.forward(conv, torch.ones(1, 3, 5, 5)))


def test_conv2d_rejects_norm_name():
    with pytest.raises(TypeError, match="get_norm"):
        Conv2d(3, 4, 3, norm="BN")


def test_empty_batch_stays_connected():
    x = torch.zeros(0, 3, 8, 8, requires_grad=True)
    conv = Conv2d(3, 4, 3, stride=2, norm=get_norm("FrozenBN", 4))
    up = ConvTranspose2d(4, 2, kernel_size=2, stride=2)
    linear = Linear(6, 5)
    y = linear(up(conv(x)))
    assert y.shape == (0, 2, 6, 5)
    y.sum().backward()
    for layer in (conv, up, linear):
        assert layer.weight.grad.eq(0).all()
