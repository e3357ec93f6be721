"""Focal loss from integer classes, against torchvision's with one-hot targets."""

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import sigmoid_focal_loss as one_hot_focal_loss

from hydet.kernels import sigmoid_focal_loss
from hydet.kernels.sigmoid_focal_loss.op import _sigmoid_focal_loss, _sigmoid_focal_loss_backward

SETTINGS = [(0.25, 2.0), (-1.0, 2.0), (0.5, 0.0), (0.25, 1.5)]
SHAPES = [(2, (7, 0, 33), 5), (1, (300, 70), 80), (1, (1,), 1)]


def make_levels(num_images, rows, num_classes, dtype=torch.float32):
    levels = [(torch.randn(num_images, n, num_classes) * 4).to(dtype) for n in rows]
    return levels, torch.randint(-1, num_classes + 1, (num_images, sum(rows)))


def expected_of(levels, targets, alpha, gamma):
    logits = torch.cat(levels, dim=1)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    counts, num_classes = targets >= 0, logits.shape[2]
    one_hot = F.one_hot(targets[counts], num_classes + 1)[:, :num_classes].to(logits.dtype)
    return one_hot_focal_loss(logits[counts], one_hot, alpha, gamma, reduction="sum")


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("shape", SHAPES)
def test_value_and_gradient(shape, settings):
    levels, targets = make_levels(*shape)
    levels = [level.requires_grad_() for level in levels]
    expected = expected_of(levels, targets, *settings)
    loss = sigmoid_focal_loss(levels, targets, alpha=settings[0], gamma=settings[1])
    torch.testing.assert_close(loss, expected)
    for got, wanted in zip(torch.autograd.grad(3 * loss, levels), torch.autograd.grad(3 * expected, levels)):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("shape", SHAPES)
def test_triton_matches_torchvision(triton_device, shape, settings, dtype):
    from hydet.kernels.sigmoid_focal_loss.triton_impl import (
        launch_sigmoid_focal_loss,
        launch_sigmoid_focal_loss_backward,
    )

    levels, targets = make_levels(*shape, dtype)
    levels = [level.requires_grad_() for level in levels]
    expected = expected_of(levels, targets, *settings)
    wanted = torch.autograd.grad(0.5 * expected, levels)
    moved = [level.detach().to(triton_device) for level in levels]
    loss = launch_sigmoid_focal_loss(moved, targets.to(triton_device), *settings)
    torch.testing.assert_close(loss.cpu(), expected.detach())
    upstream = torch.tensor(0.5, device=triton_device)
    grads = launch_sigmoid_focal_loss_backward(upstream, moved, targets.to(triton_device), *settings)
    for got, grad in zip(grads, wanted):
        assert got.dtype == dtype
        torch.testing.assert_close(got.cpu(), grad)


def test_triton_takes_eight_levels(triton_device):
    from hydet.kernels.sigmoid_focal_loss.triton_impl import MAX_LEVELS, launch_sigmoid_focal_loss

    levels, targets = make_levels(3, (2,) * MAX_LEVELS, 3)
    moved = [level.to(triton_device) for level in levels]
    loss = launch_sigmoid_focal_loss(moved, targets.to(triton_device), 0.25, 2.0)
    torch.testing.assert_close(loss.cpu(), expected_of(levels, targets, 0.25, 2.0))


def test_triton_takes_strided_logits_and_blocks_that_cut_rows(triton_device):
    from hydet.kernels.sigmoid_focal_loss.triton_impl import launch_sigmoid_focal_loss

    levels, targets = make_levels(
        2, (3000, 11), 7
    )  # 42,000 numbers: several blocks, none a multiple of a row
    strided = [level.permute(2, 0, 1).contiguous().permute(1, 2, 0).to(triton_device) for level in levels]
    loss = launch_sigmoid_focal_loss(strided, targets.to(triton_device), 0.25, 2.0)
    torch.testing.assert_close(loss.cpu(), expected_of(levels, targets, 0.25, 2.0))


def test_triton_on_extreme_logits(triton_device):
    from hydet.kernels.sigmoid_focal_loss.triton_impl import (
        launch_sigmoid_focal_loss,
        launch_sigmoid_focal_loss_backward,
    )

    logits = torch.tensor([[[-200.0, -30, -1e-4, 0, 1e-4, 30, 200]]]).mT.contiguous()  # 7 rows, 1 class
    for target in (0, 1):
        targets = torch.full((1, 7), target)
        level = logits.clone().double().requires_grad_()
        expected = expected_of([level], targets, 0.25, 2.0)
        (wanted,) = torch.autograd.grad(expected, level)
        moved = [logits.to(triton_device)], targets.to(triton_device), 0.25, 2.0
        torch.testing.assert_close(launch_sigmoid_focal_loss(*moved).cpu(), expected.detach().float())
        (grad,) = launch_sigmoid_focal_loss_backward(torch.ones((), device=triton_device), *moved)
        torch.testing.assert_close(grad.cpu(), wanted.float(), rtol=1e-5, atol=1e-12)


def test_one_tensor():
    levels, targets = make_levels(1, (12,), 4)
    torch.testing.assert_close(
        sigmoid_focal_loss(levels[0][0], targets[0], alpha=0.25),
        sigmoid_focal_loss(levels, targets, alpha=0.25),
    )


def test_background_and_ignored_rows():
    logits = torch.randn(1, 3, 2)
    with_ignored = sigmoid_focal_loss([logits], torch.tensor([[2, -1, 0]]), alpha=0.25)
    without = sigmoid_focal_loss([logits[:, [0, 2]]], torch.tensor([[2, 0]]), alpha=0.25)
    torch.testing.assert_close(with_ignored, without)


@pytest.mark.parametrize("shape", [(0, (3,), 4), (2, (0, 0), 4)])
def test_of_nothing_is_a_connected_zero(shape):
    levels, targets = make_levels(*shape)
    levels = [level.requires_grad_() for level in levels]
    loss = sigmoid_focal_loss(levels, targets)
    loss.backward()
    assert loss.item() == 0 and all(level.grad.shape == level.shape for level in levels)


@pytest.mark.parametrize("shape", [(0, (3,), 4), (2, (0, 0), 4)])
def test_triton_on_nothing(triton_device, shape):
    from hydet.kernels.sigmoid_focal_loss.triton_impl import (
        launch_sigmoid_focal_loss,
        launch_sigmoid_focal_loss_backward,
    )

    levels, targets = make_levels(*shape)
    moved = [level.to(triton_device) for level in levels], targets.to(triton_device), 0.25, 2.0
    assert launch_sigmoid_focal_loss(*moved).item() == 0
    grads = launch_sigmoid_focal_loss_backward(torch.ones((), device=triton_device), *moved)
    assert [g.shape for g in grads] == [level.shape for level in levels]


def test_triton_hands_on_what_is_not_finite(triton_device):
    from hydet.kernels.sigmoid_focal_loss.triton_impl import launch_sigmoid_focal_loss

    for value, targets in ((torch.nan, [0, 2]), (torch.inf, [2, 2]), (-torch.inf, [0, 2])):
        logits = torch.tensor([[[value, 0.0], [1.0, 2.0]]])
        own = torch.tensor([targets])
        found = launch_sigmoid_focal_loss([logits.to(triton_device)], own.to(triton_device), 0.25, 2.0)
        expected = sigmoid_focal_loss([logits], own, alpha=0.25)
        torch.testing.assert_close(found.cpu(), expected, equal_nan=True)
        ignored = launch_sigmoid_focal_loss(
            [logits.to(triton_device)], torch.full((1, 2), -1, device=triton_device), 0.25, 2.0
        )
        assert ignored.item() == 0


def test_nan_reaches_the_loss():
    assert sigmoid_focal_loss(torch.tensor([[torch.nan, 0.0]]), torch.tensor([2])).isnan()


def test_gradient_by_differences():
    levels, targets = make_levels(2, (4, 3), 3, torch.float64)
    levels = [level.requires_grad_() for level in levels]
    for alpha, gamma in SETTINGS:
        assert torch.autograd.gradcheck(
            lambda *x: sigmoid_focal_loss(x, targets, alpha=alpha, gamma=gamma),  # noqa: B023
            levels,
        )


def test_registration():
    levels, targets = make_levels(2, (4, 3), 3)
    levels = [level.requires_grad_() for level in levels]
    torch.library.opcheck(_sigmoid_focal_loss, (levels, targets, 0.25, 2.0))
    detached = [level.detach() for level in levels]
    torch.library.opcheck(_sigmoid_focal_loss_backward, (torch.tensor(2.0), detached, targets, 0.25, 2.0))


def test_bad_arguments():
    levels, targets = make_levels(2, (4, 3), 3)
    with pytest.raises(ValueError, match="targets must be"):
        sigmoid_focal_loss(levels, targets[:, :5])
    with pytest.raises(ValueError, match="each level must be"):
        sigmoid_focal_loss([levels[0], levels[1][..., :2]], targets)
    with pytest.raises(ValueError, match="gamma"):
        sigmoid_focal_loss(levels, targets, gamma=-1)
    with pytest.raises(TypeError, match="integers"):
        sigmoid_focal_loss(levels, targets.float())
    with pytest.raises(ValueError, match="at least one level"):
        sigmoid_focal_loss([], targets)


def test_compiles_and_exports():
    class Model(torch.nn.Module):
        def forward(self, first, second, targets):
            return sigmoid_focal_loss([first * 2, second], targets, alpha=0.25)

    levels, targets = make_levels(2, (4, 3), 3)
    expected = Model()(*levels, targets)
    leaf = levels[0].clone().requires_grad_()
    loss = torch.compile(Model(), fullgraph=True, backend="aot_eager")(leaf, levels[1], targets)
    torch.testing.assert_close(loss.detach(), expected)
    loss.backward()
    assert leaf.grad is not None
    program = torch.export.export(Model(), (*levels, targets))
    torch.testing.assert_close(program.module()(*levels, targets), expected)
