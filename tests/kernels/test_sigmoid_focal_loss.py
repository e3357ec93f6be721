"""Focal loss of integer class targets."""

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import sigmoid_focal_loss as torchvision_focal_loss

from hydet.kernels import sigmoid_focal_loss
from hydet.kernels.sigmoid_focal_loss.op import _sigmoid_focal_loss, _sigmoid_focal_loss_backward
from hydet.kernels.sigmoid_focal_loss.reference import forward_reference

OP = "sigmoid_focal_loss"
SETTINGS = [(0.25, 2.0), (-1.0, 2.0), (0.5, 0.0), (0.25, 1.5)]
SHAPES = [(2, (7, 0, 33), 5), (1, (300, 70), 80), (1, (1,), 1)]


def make_levels(num_images, rows, num_classes, dtype=torch.float32):
    levels = [(torch.randn(num_images, n, num_classes) * 4).to(dtype) for n in rows]
    return levels, torch.randint(-1, num_classes + 1, (num_images, sum(rows)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("shape", SHAPES)
def test_matches_definition(forward, backward, shape, settings, dtype):
    levels, targets = make_levels(*shape, dtype)
    leaves = [level.clone().requires_grad_() for level in levels]
    expected = forward_reference(leaves, targets, *settings)
    torch.testing.assert_close(forward(levels, targets, *settings), expected.detach())
    grads = backward(torch.tensor(0.5), levels, targets, *settings)
    for grad, expected_grad in zip(grads, torch.autograd.grad(0.5 * expected, leaves), strict=True):
        assert grad.dtype == dtype
        torch.testing.assert_close(grad, expected_grad)


@pytest.mark.parametrize("settings", SETTINGS)
def test_definition_matches_torchvision(settings):
    (logits,), targets = make_levels(1, (40,), 5)
    is_counted = targets >= 0
    one_hot = F.one_hot(targets[is_counted], 6)[:, :5].float()
    expected = torchvision_focal_loss(logits[is_counted], one_hot, *settings, reduction="sum")
    torch.testing.assert_close(forward_reference([logits], targets, *settings), expected)


@pytest.mark.parametrize("settings", SETTINGS)
def test_op_is_differentiable(settings):
    levels, targets = make_levels(*SHAPES[0])
    levels = [level.requires_grad_() for level in levels]
    loss = sigmoid_focal_loss(levels, targets, alpha=settings[0], gamma=settings[1])
    expected = forward_reference(levels, targets, *settings)
    torch.testing.assert_close(loss, expected)
    grads, expected_grads = (torch.autograd.grad(3 * value, levels) for value in (loss, expected))
    torch.testing.assert_close(grads, expected_grads)


def test_triton_takes_eight_levels(triton_device):
    from hydet.kernels.sigmoid_focal_loss.triton_impl import MAX_LEVELS, launch_forward

    levels, targets = make_levels(3, (2,) * MAX_LEVELS, 3)
    loss = launch_forward([level.to(triton_device) for level in levels], targets.to(triton_device), 0.25, 2.0)
    torch.testing.assert_close(loss.cpu(), forward_reference(levels, targets, 0.25, 2.0))


def test_more_levels_than_the_kernel_takes(monkeypatch):
    monkeypatch.setenv("HYDET_KERNELS", "triton")
    pytest.importorskip("triton")
    if torch.cuda.is_available():
        pytest.skip("kernels are compiled on this machine, so the interpreter is off")
    levels, targets = make_levels(1, (2,) * 9, 3)
    loss = sigmoid_focal_loss(levels, targets, alpha=0.25)
    torch.testing.assert_close(loss, forward_reference(levels, targets, 0.25, 2.0))


def test_strided_logits_and_blocks_that_split_rows(forward):
    levels, targets = make_levels(2, (3000, 11), 7)  # 42,000 values: several blocks, none a multiple of a row
    strided = [level.permute(2, 0, 1).contiguous().permute(1, 2, 0) for level in levels]
    loss = forward(strided, targets, 0.25, 2.0)
    torch.testing.assert_close(loss, forward_reference(levels, targets, 0.25, 2.0))


def test_extreme_logits(forward, backward):
    logits = torch.tensor([[[-200.0, -30, -1e-4, 0, 1e-4, 30, 200]]]).mT.contiguous()  # 7 rows, 1 class
    for target in (0, 1):
        targets = torch.full((1, 7), target)
        leaf = logits.double().requires_grad_()
        expected = forward_reference([leaf], targets, 0.25, 2.0)
        (expected_grad,) = torch.autograd.grad(expected, leaf)
        torch.testing.assert_close(forward([logits], targets, 0.25, 2.0), expected.detach().float())
        (grad,) = backward(torch.ones(()), [logits], targets, 0.25, 2.0)
        torch.testing.assert_close(grad, expected_grad.float(), rtol=1e-5, atol=1e-12)


def test_single_tensor():
    levels, targets = make_levels(1, (12,), 4)
    torch.testing.assert_close(
        sigmoid_focal_loss(levels[0][0], targets[0], alpha=0.25),
        sigmoid_focal_loss(levels, targets, alpha=0.25),
    )


def test_ignored_rows_do_not_count():
    logits = torch.randn(1, 3, 2)
    with_ignored = sigmoid_focal_loss([logits], torch.tensor([[2, -1, 0]]), alpha=0.25)
    without = sigmoid_focal_loss([logits[:, [0, 2]]], torch.tensor([[2, 0]]), alpha=0.25)
    torch.testing.assert_close(with_ignored, without)


@pytest.mark.parametrize("shape", [(0, (3,), 4), (2, (0, 0), 4)])
def test_no_rows(forward, backward, shape):
    levels, targets = make_levels(*shape)
    assert forward(levels, targets, 0.25, 2.0).item() == 0
    grads = backward(torch.ones(()), levels, targets, 0.25, 2.0)
    assert [grad.shape for grad in grads] == [level.shape for level in levels]


@pytest.mark.parametrize("shape", [(0, (3,), 4), (2, (0, 0), 4)])
def test_loss_of_no_rows_has_a_gradient(shape):
    levels, targets = make_levels(*shape)
    levels = [level.requires_grad_() for level in levels]
    loss = sigmoid_focal_loss(levels, targets)
    loss.backward()
    assert loss.item() == 0 and all(level.grad.shape == level.shape for level in levels)


def test_non_finite_logits_give_a_non_finite_loss(forward):
    for value, targets in ((torch.nan, [0, 2]), (torch.inf, [2, 2]), (-torch.inf, [0, 2])):
        logits = torch.tensor([[[value, 0.0], [1.0, 2.0]]])
        assert not forward([logits], torch.tensor([targets]), 0.25, 2.0).isfinite()
        assert forward([logits], torch.full((1, 2), -1), 0.25, 2.0) == 0  # ignored rows


def test_gradcheck():
    levels, targets = make_levels(2, (4, 3), 3, torch.float64)
    levels = [level.requires_grad_() for level in levels]
    for alpha, gamma in SETTINGS:
        assert torch.autograd.gradcheck(
            lambda *x: sigmoid_focal_loss(x, targets, alpha=alpha, gamma=gamma),  # noqa: B023
            levels,
        )


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # opcheck reads it
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
