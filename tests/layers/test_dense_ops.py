"""Ops on the dense predictions of a whole batch, compared with the layers for one image."""

import torch
import torch.nn.functional as F

from hydet.layers import batched_nms, sigmoid_focal_loss
from hydet.layers.dense_ops import dense_focal_loss, match_anchors, nms_padded
from hydet.structures import pairwise_iou


def random_boxes(*shape):
    corner = torch.rand(*shape, 2) * 60
    return torch.cat([corner, corner + 1 + torch.rand(*shape, 2) * 40], dim=-1)


def test_dense_focal_loss_equals_the_loss_of_one_hot_targets():
    levels = [torch.randn(2, rows, 3, requires_grad=True) for rows in (8, 4)]
    targets = torch.randint(-1, 4, (2, 12))  # -1 is ignored, 3 is background
    logits = torch.cat(levels, dim=1)[targets >= 0]
    one_hot = F.one_hot(targets[targets >= 0], 4)[:, :3]
    expected = sigmoid_focal_loss(logits, one_hot, 0.25, 2.0, reduction="sum")
    loss = dense_focal_loss(levels, targets, alpha=0.25, gamma=2.0)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(loss, levels), torch.autograd.grad(expected, levels))


def test_anchors_match_the_ground_truth_of_highest_iou():
    anchors, gt_boxes = random_boxes(50), random_boxes(4)
    best_iou, best_gt = pairwise_iou(gt_boxes, anchors).max(dim=0)
    matches, labels = match_anchors(anchors, gt_boxes, thresholds=[0.2, 0.4], labels=[0, -1, 1])
    assert torch.equal(matches[best_iou > 0], best_gt[best_iou > 0])
    assert torch.equal(labels == 1, best_iou >= 0.4)
    assert torch.equal(labels == 0, best_iou < 0.2)


def test_suppression_of_a_batch_equals_suppression_per_image():
    boxes, scores, groups = random_boxes(3, 40), torch.rand(3, 40), torch.randint(0, 4, (3, 40))
    indices, counts = nms_padded(boxes, scores, 0.3, groups=groups)
    for i in range(3):
        expected = batched_nms(boxes[i], scores[i], groups[i], 0.3)
        assert indices[i, : counts[i]].tolist() == expected.tolist()
        assert (indices[i, counts[i] :] == 0).all()
