import pytest
import torch
import torch.nn.functional as F
from torchvision import ops

from hydet.layers import ciou_loss, diou_loss, giou_loss, sigmoid_focal_loss, smooth_l1_loss

BOX_LOSSES = [giou_loss, diou_loss, ciou_loss]


def random_boxes(count):
    corner = torch.rand(count, 2) * 50
    return torch.cat([corner, corner + 1 + torch.rand(count, 2) * 40], dim=1)


@pytest.mark.parametrize("loss", BOX_LOSSES)
def test_box_losses_are_zero_for_equal_boxes_and_grow_with_distance(loss):
    boxes = random_boxes(8)
    torch.testing.assert_close(loss(boxes, boxes), torch.zeros(8), atol=1e-4, rtol=0)
    near, far = loss(boxes, boxes + 200), loss(boxes, boxes + 1000)
    assert (near > 1).all() and (far > near).all()


@pytest.mark.parametrize("loss", BOX_LOSSES)
def test_box_losses_of_empty_input_are_connected_zero(loss):
    nothing = torch.zeros(0, 4, requires_grad=True)
    for reduction in ("mean", "sum"):
        value = loss(nothing, torch.zeros(0, 4), reduction=reduction)
        assert value == 0 and torch.autograd.grad(value, nothing)[0].shape == (0, 4)


@pytest.mark.parametrize("loss", BOX_LOSSES)
def test_box_losses_of_degenerate_boxes_are_finite(loss):
    points = torch.tensor([[5.0, 5, 5, 5], [0, 0, 0, 9], [0, 0, 9, 0]], requires_grad=True)
    value = loss(points, torch.tensor([[5.0, 5, 5, 5], [0, 0, 0, 9], [3, 3, 7, 8]]), reduction="sum")
    assert torch.isfinite(value) and torch.isfinite(torch.autograd.grad(value, points)[0]).all()


def test_box_losses_match_torchvision():
    a, b = random_boxes(20), random_boxes(20)
    torch.testing.assert_close(giou_loss(a, b), ops.generalized_box_iou_loss(a, b))
    torch.testing.assert_close(diou_loss(a, b), ops.distance_box_iou_loss(a, b))
    torch.testing.assert_close(ciou_loss(a, b), ops.complete_box_iou_loss(a, b))


def test_focal_loss_matches_torchvision_and_cross_entropy():
    logits, targets = torch.randn(6, 3), (torch.rand(6, 3) > 0.5).float()
    torch.testing.assert_close(
        sigmoid_focal_loss(logits, targets, 0.25, 2.0), ops.sigmoid_focal_loss(logits, targets, 0.25, 2.0)
    )
    torch.testing.assert_close(
        sigmoid_focal_loss(logits, targets, gamma=0, reduction="sum"),
        F.binary_cross_entropy_with_logits(logits, targets, reduction="sum"),
    )


def test_smooth_l1_matches_torch_and_l1():
    a, b = torch.randn(30), torch.randn(30)
    torch.testing.assert_close(
        smooth_l1_loss(a, b, beta=0.5), F.smooth_l1_loss(a, b, beta=0.5, reduction="none")
    )
    torch.testing.assert_close(smooth_l1_loss(a, b, beta=0.0, reduction="sum"), (a - b).abs().sum())
    assert smooth_l1_loss(a[:0], b[:0], beta=0.0, reduction="mean") == 0


def test_unknown_reduction_raises():
    with pytest.raises(ValueError, match="'avg'"):
        smooth_l1_loss(torch.ones(1), torch.ones(1), 0.1, reduction="avg")
