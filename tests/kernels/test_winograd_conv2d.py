"""3 x 3 convolution by Winograd's algorithm."""

import threading

import pytest
import torch
import torch.nn.functional as F

from hydet.kernels import transform_winograd_weight, winograd_conv2d, winograd_conv2d_transformed
from hydet.kernels.winograd_conv2d import torch_impl
from hydet.kernels.winograd_conv2d.reference import forward_reference

# Height and width below, at and above multiples of the tile; whole images in a strip, and strips of one image.
SHAPES = [(1, 3, 4, 4), (2, 5, 7, 9), (3, 4, 33, 6), (5, 2, 1, 1), (40, 3, 14, 14), (1, 8, 2, 50)]


@pytest.fixture(params=[40, 80_000], ids=["many strips", "one strip"], autouse=True)
def strip_size(request, monkeypatch):
    monkeypatch.setattr(torch_impl, "STRIP_SIZE", request.param)
    monkeypatch.setattr(torch_impl, "MIN_STRIP_TILES", 1)


def make_case(shape, num_outputs=6, dtype=torch.float64):
    x = torch.randn(shape, dtype=dtype)
    weight = torch.randn(num_outputs, shape[1], 3, 3, dtype=dtype)
    return x, weight, torch.randn(num_outputs, dtype=dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("with_bias", [True, False])
def test_matches_definition(shape, with_bias):
    x, weight, bias = make_case(shape)
    bias = bias if with_bias else None
    result, expected = winograd_conv2d(x, weight, bias), forward_reference(x, weight, bias)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-12)
    assert result.is_contiguous(memory_format=torch.channels_last)
    transformed = transform_winograd_weight(weight)
    torch.testing.assert_close(
        winograd_conv2d_transformed(x, transformed, bias), expected, rtol=0, atol=1e-12
    )
    rectified = winograd_conv2d_transformed(x, transformed, bias, relu=True)
    torch.testing.assert_close(rectified, expected.relu(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_match_definition(shape):
    inputs = [t.requires_grad_() for t in make_case(shape)]
    result, expected = winograd_conv2d(*inputs), forward_reference(*inputs)
    gradient = torch.randn_like(expected)
    actual = torch.autograd.grad(result, inputs, gradient)
    for ours, theirs in zip(actual, torch.autograd.grad(expected, inputs, gradient), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("position", range(3))
def test_only_the_gradients_in_use_are_computed(position):
    inputs = list(make_case((2, 3, 6, 5)))
    inputs[position].requires_grad_()
    (gradient,) = torch.autograd.grad(winograd_conv2d(*inputs).sum(), inputs[position])
    assert gradient.shape == inputs[position].shape


def test_rounding_errors_are_those_of_the_plain_sum():
    x, weight, _ = make_case((1, 128, 16, 16), num_outputs=16)
    exact = forward_reference(x, weight, None)
    patches = F.unfold(x, 3, padding=1)[0]  # (1152, 256)
    # A convolution may use several accumulators, whose number depends on the processor; the plain sum uses one.
    plain = torch.zeros(16, 256)
    for filters, values in zip(weight.flatten(1).float().unbind(1), patches.float(), strict=True):
        plain += filters[:, None] * values
    error = (winograd_conv2d(x.float(), weight.float()) - exact).abs().max()
    assert error <= 4 * (plain.view_as(exact) - exact).abs().max()


@pytest.mark.parametrize("shape", SHAPES)
def test_bfloat16_rounds_only_inputs_products_and_outputs(shape):
    x, weight, bias = make_case(shape)
    x, bias = x.bfloat16(), bias.bfloat16()
    expected = forward_reference(x.double(), weight, bias.double())
    transformed = transform_winograd_weight(weight).float()
    result = winograd_conv2d_transformed(x, transformed, bias, relu=True)  # products in float32
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result.double(), expected.relu(), rtol=2**-8, atol=1e-4)
    result = winograd_conv2d_transformed(x, transformed.bfloat16(), bias, relu=True)
    assert result.dtype == torch.bfloat16
    error = (result.double() - expected.relu()).square().mean().sqrt()
    assert error <= 0.015 * expected.square().mean().sqrt()


def test_gradients_in_bfloat16():
    inputs = make_case((2, 5, 7, 9))
    exact = [t.requires_grad_() for t in inputs]
    rounded = [t.detach().bfloat16().requires_grad_() for t in inputs]
    gradient = torch.randn(2, 6, 7, 9, dtype=torch.float64)
    expected = torch.autograd.grad(forward_reference(*exact), exact, gradient)
    actual = torch.autograd.grad(winograd_conv2d(*rounded), rounded, gradient.bfloat16())
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.dtype == torch.bfloat16
        assert (ours - theirs).square().mean().sqrt() <= 0.03 * theirs.square().mean().sqrt()


def test_output_can_be_changed_in_place():
    x, weight, bias = make_case((2, 3, 6, 5))
    weight.requires_grad_()
    winograd_conv2d(x, weight, bias).relu_().sum().backward()
    expected = torch.autograd.grad(forward_reference(x, weight, bias).relu().sum(), weight)[0]
    torch.testing.assert_close(weight.grad, expected)


def test_empty_batch():
    x, weight, bias = make_case((0, 3, 6, 5))
    assert winograd_conv2d(x, weight.requires_grad_(), bias).shape == (0, 6, 6, 5)
    (gradient,) = torch.autograd.grad(winograd_conv2d(x, weight).sum(), weight)
    assert gradient.abs().max() == 0


@pytest.mark.parametrize(("num_inputs", "num_outputs"), [(4, 32), (32, 4), (16, 16)])
def test_working_memory_is_bounded(num_inputs, num_outputs, monkeypatch):
    monkeypatch.setattr(torch_impl, "STRIP_SIZE", 1000)
    monkeypatch.setattr(torch_impl, "LEAST_ALLOCATION", 0)
    monkeypatch.setattr(torch_impl, "_thread", threading.local())
    x, weight, bias = make_case((6, num_inputs, 24, 24), num_outputs)
    winograd_conv2d(x, weight.requires_grad_(), bias).sum().backward()
    memory = torch_impl._memory_of_thread()
    assert memory
    for buffer in memory.values():  # 36 values per tile and channel, and those of the border
        assert buffer.numel() <= 1.5 * 36 * 1000


def test_any_memory_order():
    x, weight, bias = make_case((2, 4, 9, 7))
    expected = winograd_conv2d(x, weight, bias)
    for order in (torch.contiguous_format, torch.channels_last):
        result = winograd_conv2d(x.to(memory_format=order), weight.to(memory_format=order), bias)
        assert torch.equal(result, expected)
    assert torch.equal(winograd_conv2d(x.flip(2).flip(2), weight, bias), expected)


@pytest.mark.parametrize(
    ("x", "weight", "bias", "message"),
    [
        ((1, 3, 4, 4), (2, 3, 5, 5), (2,), r"weight must be \(K, C, 3, 3\)"),
        ((1, 4, 4, 4), (2, 3, 3, 3), (2,), r"x must be \(N, 3, H, W\)"),
        ((3, 4, 4), (2, 3, 3, 3), (2,), r"x must be \(N, 3, H, W\)"),
        ((1, 3, 4, 4), (2, 3, 3, 3), (3,), r"bias must be \(2,\)"),
    ],
)
def test_wrong_shapes_raise(x, weight, bias, message):
    with pytest.raises(ValueError, match=message):
        winograd_conv2d(torch.zeros(x), torch.zeros(weight), torch.zeros(bias))


def test_wrong_transformed_weight_raises():
    with pytest.raises(ValueError, match=r"transformed_weight must be \(36, C, K\)"):
        winograd_conv2d_transformed(torch.zeros(1, 3, 4, 4), torch.zeros(2, 3, 3, 3))
    with pytest.raises(ValueError, match="weight must be"):
        transform_winograd_weight(torch.zeros(2, 3, 1, 1))
