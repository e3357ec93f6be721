import math

import pytest
import torch

from hydet.modeling import (
    Box2BoxTransform,
    Box2BoxTransformLinear,
    Box2BoxTransformRotated,
    box_regression_loss,
    dense_box_regression_loss,
)
from hydet.structures import Boxes


def upright(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    corner = 100 * torch.rand(n, 2, generator=generator)
    return torch.cat([corner, corner + 5 + 60 * torch.rand(n, 2, generator=generator)], dim=1)


def rotated(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    r = torch.rand(n, 5, generator=generator)
    return torch.cat([100 * r[:, :2], 5 + 60 * r[:, 2:4], 360 * r[:, 4:] - 180], dim=1)


def squares(n, size=16.0):
    center = upright(n, seed=3)[:, :2]
    return torch.cat([center - size / 2, center + size / 2], dim=1)


CODERS = [
    (Box2BoxTransform(weights=(10.0, 10.0, 5.0, 5.0)), upright, 4),
    (Box2BoxTransformRotated(weights=(10.0, 10.0, 5.0, 5.0, 2.0)), rotated, 5),
]


@pytest.mark.parametrize(("coder", "make", "dim"), CODERS)
@pytest.mark.parametrize("count", [0, 1, 20])
def test_apply_deltas_inverts_get_deltas(coder, make, dim, count):
    source, target = make(count), make(count, seed=1)
    deltas = coder.get_deltas(source, target)
    torch.testing.assert_close(coder.apply_deltas(deltas, source), target, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("coder", "make", "dim"), CODERS)
def test_zero_deltas_return_the_source_boxes(coder, make, dim):
    source = make(6)
    torch.testing.assert_close(coder.apply_deltas(torch.zeros(6, dim), source), source)


@pytest.mark.parametrize(("coder", "make", "dim"), [*CODERS, (Box2BoxTransformLinear(), squares, 4)])
def test_several_predictions_per_box_and_leading_axes_are_decoded_separately(coder, make, dim):
    source, deltas = make(6), torch.randn(6, 3 * dim)
    together = coder.apply_deltas(deltas, source)
    apart = [coder.apply_deltas(part, source) for part in deltas.split(dim, dim=1)]
    torch.testing.assert_close(together, torch.cat(apart, dim=1))
    batched = coder.apply_deltas(deltas.view(2, 3, -1), source.view(2, 3, -1))
    torch.testing.assert_close(batched.view(6, -1), together)


@pytest.mark.parametrize(("coder", "make", "dim"), [*CODERS, (Box2BoxTransformLinear(), squares, 4)])
def test_boxes_are_float32_for_half_precision_deltas_and_under_autocast(coder, make, dim):
    source, deltas = make(6), (0.3 * torch.randn(6, dim)).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = coder.apply_deltas(deltas, source)
    assert output.dtype == torch.float32
    torch.testing.assert_close(output, coder.apply_deltas(deltas.float(), source))


def test_size_ratios_are_limited_from_above_only():
    coder = Box2BoxTransform(weights=(1.0,) * 4)
    source = torch.tensor([[0.0, 0.0, 16.0, 16.0]])
    wide, _, _, _ = (coder.apply_deltas(torch.tensor([[0.0, 0.0, 99.0, -99.0]]), source))[0].split(1)
    assert wide.item() == pytest.approx(8 - 500, rel=1e-4)
    small = coder.apply_deltas(torch.tensor([[0.0, 0.0, -9.0, 0.0]]), source)[0]
    assert (small[2] - small[0]).item() == pytest.approx(16 * math.exp(-9), abs=1e-5)


def test_exponential_deltas_are_logarithms_of_distances():
    source, target = squares(8), squares(8) + torch.tensor([-4.0, -3, 2, 1])
    deltas = Box2BoxTransformLinear().get_deltas(source, target)
    coder = Box2BoxTransformLinear(exponential=True)
    torch.testing.assert_close(coder.get_deltas(source, target), deltas.log())
    torch.testing.assert_close(coder.apply_deltas(deltas.log(), source), target)


def test_angle_deltas_are_the_smaller_rotation():
    coder = Box2BoxTransformRotated(weights=(1.0,) * 5)
    source, target = torch.tensor([[5.0, 5, 4, 4, 170]]), torch.tensor([[5.0, 5, 4, 4, -170]])
    deltas = coder.get_deltas(source, target)
    assert deltas[0, 4].item() == pytest.approx(math.radians(20), abs=1e-5)
    assert coder.apply_deltas(deltas, source)[0, 4].item() == pytest.approx(-170, abs=1e-3)


@pytest.mark.parametrize("normalize", [True, False])
def test_linear_deltas_are_inverted_if_the_center_is_inside_the_target(normalize):
    coder, source = Box2BoxTransformLinear(normalize_by_size=normalize), squares(8)
    center = (source[:, :2] + source[:, 2:]) / 2
    target = torch.cat([center - 1 - 20 * torch.rand(8, 2), center + 1 + 20 * torch.rand(8, 2)], dim=1)
    deltas = coder.get_deltas(source, target)
    assert (deltas > 0).all()
    torch.testing.assert_close(coder.apply_deltas(deltas, source), target)
    negative = coder.apply_deltas(-deltas, source)
    torch.testing.assert_close(negative, torch.cat([center, center], dim=1))


def test_invalid_arguments_raise():
    with pytest.raises(ValueError, match="4 positive"):
        Box2BoxTransform(weights=(1.0, 1.0))
    with pytest.raises(ValueError, match="5 positive"):
        Box2BoxTransformRotated(weights=(1.0, 1.0, 1.0, 1.0, 0.0))
    with pytest.raises(ValueError, match="multiple of 4"):
        Box2BoxTransform(weights=(1.0,) * 4).apply_deltas(torch.zeros(2, 6), upright(2))


LOSSES = ["smooth_l1", "giou", "diou", "ciou"]


@pytest.mark.parametrize("kind", LOSSES)
def test_dense_loss_is_zero_for_perfect_predictions(kind):
    coder, source, target = CODERS[0][0], upright(12), upright(12, seed=1)
    deltas = coder.get_deltas(source, target)[None]
    mask = torch.rand(1, 12) > 0.3
    loss = dense_box_regression_loss(
        [Boxes(source[:5]), Boxes(source[5:])], coder, deltas.split([5, 7], 1), [target], mask, kind
    )
    assert loss.item() == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("kind", LOSSES)
def test_dense_loss_depends_on_the_foreground_only(kind):
    coder, source, target = CODERS[0][0], upright(12), upright(12, seed=1)
    mask = torch.arange(12) % 3 == 0
    deltas = torch.randn(12, 4)
    wanted = box_regression_loss(source[mask], deltas[mask], target[mask], coder, kind)
    target, deltas = target.clone(), deltas.clone().requires_grad_()
    target[~mask] = 0.0
    loss = dense_box_regression_loss([source], coder, [deltas[None]], [target], mask[None], kind)
    torch.testing.assert_close(loss, wanted)
    loss.backward()
    assert deltas.grad.isfinite().all()
    assert (deltas.grad[~mask] == 0).all()


@pytest.mark.parametrize("kind", LOSSES)
def test_dense_loss_without_foreground_is_a_connected_zero(kind):
    deltas = torch.randn(1, 12, 4, requires_grad=True)
    mask = torch.zeros(1, 12, dtype=torch.bool)
    loss = dense_box_regression_loss([upright(12)], CODERS[0][0], [deltas], [upright(12)], mask, kind)
    loss.backward()
    assert loss.item() == 0
    assert (deltas.grad == 0).all()


def test_unknown_loss_type_raises():
    with pytest.raises(ValueError, match="'l2'"):
        box_regression_loss(upright(2), torch.zeros(2, 4), upright(2), CODERS[0][0], "l2")
