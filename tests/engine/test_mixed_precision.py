import pytest
import torch
from torch import nn

from hydet.engine.mixed_precision import MixedPrecision

CPU = torch.device("cpu")


def test_float32_means_no_autocast():
    with MixedPrecision("fp32", CPU).autocast():
        assert not torch.is_autocast_enabled("cpu")


def test_bf16_autocast_leaves_weights_and_gradients_in_float32():
    precision, layer = MixedPrecision("bf16", CPU), nn.Linear(4, 1)
    with precision.autocast():
        output = layer(torch.randn(2, 4))
    assert output.dtype == torch.bfloat16
    precision.backward(output.float().sum())
    assert layer.weight.grad.dtype == torch.float32 and not precision.scaler.is_enabled()


def test_values_are_clipped_before_the_norm():
    layer = nn.Linear(4, 1, bias=False)
    layer.weight.grad = torch.tensor([[3.0, -4.0, 0.5, 0.0]])
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    norm = MixedPrecision("fp32", CPU).clip_gradients(optimizer, max_norm=0.75, max_value=1.0)
    assert norm == pytest.approx(1.5)  # of (1, -1, 0.5, 0)
    torch.testing.assert_close(layer.weight.grad, torch.tensor([[0.5, -0.5, 0.25, 0.0]]))


def test_the_norm_of_each_parameter_is_clipped_alone():
    layer = nn.Linear(2, 2)
    layer.weight.grad = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    layer.bias.grad = torch.tensor([0.3, 0.4])
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    assert MixedPrecision("fp32", CPU).clip_gradients(optimizer, max_parameter_norm=1.0) is None
    torch.testing.assert_close(layer.weight.grad, torch.tensor([[0.6, 0.0], [0.0, 0.8]]))
    assert layer.bias.grad.tolist() == pytest.approx([0.3, 0.4])


def test_without_limits_gradients_stay():
    layer = nn.Linear(1, 1)
    layer.weight.grad = torch.full((1, 1), 1e6)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    assert MixedPrecision("fp32", CPU).clip_gradients(optimizer) is None
    assert layer.weight.grad == 1e6


def test_scaled_gradients_are_clipped_in_their_true_scale_and_overflow_skips_the_step():
    precision, layer = MixedPrecision("fp32", CPU), nn.Linear(1, 1, bias=False)
    precision.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    before = layer.weight.detach().clone()
    precision.backward((layer.weight * 8).sum())
    assert layer.weight.grad == 8 * 1024
    assert precision.clip_gradients(optimizer, max_norm=2.0) == 8
    precision.step(optimizer)
    torch.testing.assert_close(layer.weight.detach(), before - 2)
    layer.weight.grad = None
    precision.backward((layer.weight * float("inf")).sum())
    precision.step(optimizer)
    torch.testing.assert_close(layer.weight.detach(), before - 2)
