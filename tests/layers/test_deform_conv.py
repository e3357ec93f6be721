import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hydet.layers import DeformConv, ModulatedDeformConv

GEOMETRIES = [{}, {"stride": 2}, {"padding": 2, "dilation": 2}, {"groups": 2}, {"deformable_groups": 2}]


@pytest.mark.parametrize("options", GEOMETRIES)
def test_zero_offsets_match_convolution(options):
    geometry = {"padding": 1, **options}
    layer = DeformConv(in_channels=4, out_channels=6, kernel_size=3, **geometry)
    geometry.pop("deformable_groups", None)
    x = torch.randn(2, 4, 9, 11)
    expected = F.conv2d(x, layer.weight, **geometry)
    taps = layer.deformable_groups * 9
    offset = torch.zeros(2, 2 * taps, *expected.shape[2:])
    torch.testing.assert_close(layer(x, offset), expected)
    modulated = ModulatedDeformConv(in_channels=4, out_channels=6, kernel_size=3, **{"padding": 1, **options})
    nn.init.normal_(modulated.bias)
    half = torch.full((2, taps, *expected.shape[2:]), 0.5)
    torch.testing.assert_close(
        modulated(x, offset, half), F.conv2d(x, modulated.weight * 0.5, modulated.bias, **geometry)
    )


def test_integer_offsets_shift_input():
    layer = DeformConv(in_channels=2, out_channels=3, kernel_size=1)
    x, offset = torch.randn(1, 2, 6, 7), torch.zeros(1, 2, 6, 7)
    offset[:, 0] = 1  # one row down
    expected = F.conv2d(x, layer.weight)
    y = layer(x, offset)
    torch.testing.assert_close(y[..., :-1, :], expected[..., 1:, :])
    assert y[..., -1, :].eq(0).all()


def test_norm_and_activation_are_applied_last():
    norm = nn.BatchNorm2d(3).eval()
    nn.init.constant_(norm.bias, -0.2)
    layer = DeformConv(in_channels=2, out_channels=3, kernel_size=1, norm=norm, activation=F.relu)
    x = torch.randn(1, 2, 4, 4)
    torch.testing.assert_close(layer(x, torch.zeros(1, 2, 4, 4)), norm(F.conv2d(x, layer.weight)).relu())


def test_invalid_arguments_raise():
    with pytest.raises(ValueError, match="does not support a bias"):
        DeformConv(in_channels=4, out_channels=4, kernel_size=3, bias=True)
    with pytest.raises(ValueError, match="groups=3 does not divide in_channels=4"):
        ModulatedDeformConv(in_channels=4, out_channels=3, kernel_size=3, groups=3)
    layer = ModulatedDeformConv(in_channels=4, out_channels=4, kernel_size=3, padding=1)
    with pytest.raises(ValueError, match="18 channels and a mask 9"):
        layer(torch.zeros(1, 4, 5, 5), torch.zeros(1, 18, 5, 5), torch.zeros(1, 18, 5, 5))
