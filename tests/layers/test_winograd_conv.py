"""Convolutions that use Winograd's algorithm where it is faster."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hydet.layers import Conv2d, FrozenBatchNorm2d, winograd_conv
from hydet.layers.winograd_conv import WinogradConv2d


@pytest.fixture(autouse=True)
def few_channels(monkeypatch):
    monkeypatch.setattr(winograd_conv, "_MIN_CHANNELS", 4)
    monkeypatch.setattr(winograd_conv, "_MIN_CHANNELS_IN_TRAINING", 4)
    monkeypatch.setattr(winograd_conv, "_MIN_TILES_IN_TRAINING", 16)
    monkeypatch.setattr(winograd_conv, "_MIN_CHANNELS_IN_BFLOAT16", 8)
    monkeypatch.setattr(winograd_conv, "_MIN_TILES_IN_BFLOAT16", 50)  # 2 images of 4 x 7 tiles


@pytest.fixture
def calls(monkeypatch):
    """Return the names of the ops that were called."""
    names = []
    for name in ("winograd_conv2d", "winograd_conv2d_transformed"):
        op = getattr(winograd_conv, name)

        def record(*args, name=name, op=op, **kwargs):
            names.append(name)
            return op(*args, **kwargs)

        monkeypatch.setattr(winograd_conv, name, record)
    return names


@pytest.mark.parametrize(
    ("settings", "fits"),
    [
        ({}, True),
        ({"padding": 0}, False),
        ({"padding": 2, "dilation": 2}, False),
        ({"stride": 2}, False),
        ({"groups": 2}, False),
        ({"kernel_size": 1}, False),
        ({"padding_mode": "reflect"}, False),
        ({"out_channels": 3}, False),
    ],
)
def test_fits(settings, fits):
    settings = {"in_channels": 4, "out_channels": 4, "kernel_size": 3, "padding": 1, **settings}
    for training in (True, False):
        assert WinogradConv2d.fits(nn.Conv2d(**settings), training=training) is fits
        assert WinogradConv2d.fits(Conv2d(**settings), training=training) is fits
    assert not WinogradConv2d.fits(nn.ConvTranspose2d(4, 4, 3, padding=1), training=True)


@pytest.mark.parametrize(("channels", "fits"), [(4, False), (8, True)])
def test_bfloat16_needs_more_channels(channels, fits):
    conv = nn.Conv2d(channels, 8, 3, padding=1)
    assert WinogradConv2d.fits(conv, training=False)
    assert WinogradConv2d.fits(conv, training=False, bfloat16=True) is fits


@pytest.mark.parametrize(("width", "expected"), [(18, []), (26, ["winograd_conv2d_transformed"])])
def test_inference_in_bfloat16(calls, width, expected):
    conv = Conv2d(8, 12, 3, padding=1, activation=F.relu)
    x = torch.randn(2, 8, 13, width)
    with torch.no_grad():
        exact = conv(x)
        WinogradConv2d.convert(conv).prepare_inference()
        conv.to(torch.bfloat16)
        result = conv(x.bfloat16())
    assert calls == expected and result.dtype == torch.bfloat16
    torch.testing.assert_close(result.float(), exact, rtol=0, atol=0.05)


@pytest.mark.parametrize("activation", [None, F.relu, nn.ReLU(inplace=True), F.gelu])
@pytest.mark.parametrize("norm", [None, "frozen"])
def test_inference_uses_the_transformed_weight(calls, activation, norm):
    conv = Conv2d(4, 6, 3, padding=1, norm=norm and FrozenBatchNorm2d(num_features=6), activation=activation)
    x = torch.randn(2, 4, 13, 18)
    with torch.no_grad():
        expected = conv(x)
        WinogradConv2d.convert(conv)
        conv.prepare_inference()
        torch.testing.assert_close(conv(x), expected, rtol=0, atol=1e-5)
    assert calls == ["winograd_conv2d_transformed"]
    assert conv.state_dict().keys() >= {"weight", "bias"} and "transformed_weight" not in conv.state_dict()


def test_a_plain_convolution_keeps_its_place(calls):
    conv = nn.Conv2d(4, 6, 3, padding=1)
    owner = nn.Sequential(conv, nn.ReLU())
    x = torch.randn(2, 4, 13, 18)
    expected = owner(x)
    WinogradConv2d.convert(conv)
    torch.testing.assert_close(owner(x), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(copy.deepcopy(owner)(x), expected, rtol=0, atol=1e-5)
    assert owner[0] is conv and calls == ["winograd_conv2d"] * 2


def test_training_scales_the_weight_by_the_frozen_norm(calls):
    conv = Conv2d(4, 6, 3, padding=1, bias=False, norm=FrozenBatchNorm2d(num_features=6), activation=F.relu)
    conv.norm.weight.uniform_(0.5, 2)
    exact = copy.deepcopy(conv)
    WinogradConv2d.convert(conv)
    conv.scales_weight = True
    x = torch.randn(2, 4, 13, 18)
    for layer in (exact, conv):
        layer(x).square().sum().backward()
    torch.testing.assert_close(conv.weight.grad, exact.weight.grad, rtol=1e-4, atol=1e-4)
    assert calls == ["winograd_conv2d"]


@pytest.mark.parametrize("case", ["double", "bfloat16", "autocast", "tiny"])
def test_other_inputs_take_the_plain_convolution(calls, case):
    conv = Conv2d(4, 6, 3, padding=1)
    WinogradConv2d.convert(conv)
    conv.prepare_inference()
    x = torch.randn(2, 4, *((5, 8) if case == "tiny" else (13, 18)))
    if case in ("double", "bfloat16"):
        dtype = getattr(torch, "float64" if case == "double" else case)
        conv, x = conv.to(dtype), x.to(dtype)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=case == "autocast"):
        assert torch.equal(conv(x), F.conv2d(x, conv.weight, conv.bias, padding=1))
    assert calls == []


@pytest.mark.parametrize(("width", "expected"), [(18, []), (26, ["winograd_conv2d"])])
def test_few_channels_train_with_it_only_on_large_feature_maps(calls, monkeypatch, width, expected):
    monkeypatch.setattr(winograd_conv, "_MIN_CHANNELS", 8)
    monkeypatch.setattr(winograd_conv, "_MIN_TILES_OF_FEW_CHANNELS", 50)  # 2 images of 4 x 5 or 4 x 7 tiles
    conv = nn.Conv2d(4, 6, 3, padding=1)
    WinogradConv2d.convert(conv)
    conv(torch.randn(2, 4, 13, width)).sum().backward()
    assert calls == expected
