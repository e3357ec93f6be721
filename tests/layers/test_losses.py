import pytest
import torch
import torch.nn.functional as F
from torchvision import ops

from hydet.layers import (
    cat,
    ciou_loss,
    cross_entropy,
    diou_loss,
    giou_loss,
    nonzero_tuple,
    sigmoid_focal_loss,
    smooth_l1_loss,
)

BOX_LOSSES = [giou_loss, diou_loss, ciou_loss]


def random_boxes(count):
    corner = torch.rand(count, 2) * 50
    return torch.cat([corner, corner + 1 + torch.rand(count, 2) * 40], dim=1)


@pytest.mark.parametrize("loss", BOX_LOSSES)
def test_box_losses_vanish_for_equal_boxes_and_grow_with_distance(loss):
    boxes = random_boxes(8)
    torch.testing.assert_close(loss(boxes, boxes), torch.zeros(8), atol=1e-4, rtol=0)
    near, far = loss(boxes, boxes + 200), loss(boxes, boxes + 1000)
    assert (near > 1).all() and (far > near).all()


@pytest.mark.parametrize("loss", BOX_LOSSES)
def test_box_losses_of_nothing_are_a_connected_zero(loss):
    nothing = torch.zeros(0, 4, requires_grad=True)
    for reduction in ("mean", "sum"):
        value = loss(nothing, torch.zeros(0, 4), reduction=reduction)
        assert value == 0 and torch.autograd.grad(value, nothing)[0].shape == (0, 4)


@pytest.mark.parametrize("loss", BOX_LOSSES)
def test_box_losses_stay_finite_on_degenerate_boxes(loss):
    points = torch.tensor([[5.0, 5, 5, 5], [0, 0, 0, 9], [0, 0, 9, 0]], requires_grad=True)
    value = loss(points, torch.tensor([[5.0, 5, 5, 5], [0, 0, 0, 9], [3, 3, 7, 8]]), reduction="sum")
    assert torch.isfinite(value) and torch.isfinite(torch.autograd.grad(value, points)[0]).all()


def test_box_losses_agree_with_torchvision():
    a, b = random_boxes(20), random_boxes(20)
    torch.testing.assert_close(giou_loss(a, b), ops.generalized_box_iou_loss(a, b))
    torch.testing.assert_close(diou_loss(a, b), ops.distance_box_iou_loss(a, b))
    torch.testing.assert_close(ciou_loss(a, b), ops.complete_box_iou_loss(a, b))


def test_focal_loss_agrees_with_torchvision_and_reduces_to_cross_entropy():
    logits, targets = torch.randn(6, 3), (torch.rand(6, 3) > 0.5).float()
    torch.testing.assert_close(
        sigmoid_focal_loss(logits, targets, 0.25, 2.0), ops.sigmoid_focal_loss(logits, targets, 0.25, 2.0)
    )
    torch.testing.assert_close(
        sigmoid_focal_loss(logits, targets, gamma=0, reduction="sum"),
        F.binary_cross_entropy_with_logits(logits, targets, reduction="sum"),
    )


def test_smooth_l1_meets_torch_and_plain_l1():
    a, b = torch.randn(30), torch.randn(30)
    torch.testing.assert_close(
        smooth_l1_loss(a, b, beta=0.5), F.smooth_l1_loss(a, b, beta=0.5, reduction="none")
    )
    torch.testing.assert_close(smooth_l1_loss(a, b, beta=0.0, reduction="sum"), (a - b).abs().sum())
    assert smooth_l1_loss(a[:0], b[:0], beta=0.0, reduction="mean") == 0


def test_unknown_reduction_is_refused():
    with pytest.raises(ValueError, match="'avg'"):
        smooth_l1_loss(torch.ones(1), torch.ones(1), 0.1, reduction="avg")


def test_cross_entropy_of_nothing_is_a_connected_zero():
    logits = torch.zeros(0, 5, requires_grad=True)
    loss = cross_entropy(logits, torch.zeros(0, dtype=torch.int64))
    assert loss == 0 and loss.requires_grad


def test_cat_returns_a_single_tensor_itself():
    x = torch.randn(2, 3)
    assert cat([x]) is x
    assert cat((x, x), dim=1).shape == (2, 6)
    with pytest.raises(TypeError, match="Tensor"):
        cat(x)


def test_nonzero_tuple_takes_scalars():
    assert nonzero_tuple(torch.tensor(True))[0].tolist() == [0]
    assert [i.tolist() for i in nonzero_tuple(torch.eye(2))] == [[0, 1], [0, 1]]
