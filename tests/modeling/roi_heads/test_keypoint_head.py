import pytest
import torch

from hydet.layers import ShapeSpec
from hydet.modeling import (
    KRCNNConvDeconvUpsampleHead,
    keypoint_rcnn_inference,
    keypoint_rcnn_loss,
)
from hydet.structures import Boxes, Instances

SIZE, K = (40, 50), 4


def head(**options):
    shape = ShapeSpec(channels=4, height=5, width=5)
    return KRCNNConvDeconvUpsampleHead(input_shape=shape, num_keypoints=K, conv_dims=[6], **options)


def foreground(make, count):
    proposals = make.targets(SIZE, count, num_classes=1)
    proposals.proposal_boxes = proposals.gt_boxes
    return proposals


def empty():
    return Instances(SIZE, proposal_boxes=Boxes([]), gt_classes=torch.zeros(0).long())


@pytest.mark.parametrize("training", [True, False])
def test_ground_truth_selects_losses_in_any_mode(make, training):
    module = head().train(training)
    assert set(module(torch.randn(3, 4, 5, 5), [foreground(make, 3)])) == {"loss_keypoint"}
    given = [
        Instances(SIZE, pred_boxes=Boxes(make.random_boxes(n, SIZE)), pred_classes=torch.zeros(n).long())
        for n in (2, 0, 1)
    ]
    detections = module(torch.randn(3, 4, 5, 5), given)
    assert [tuple(f.pred_keypoints.shape) for f in detections] == [(2, K, 3), (0, K, 3), (1, K, 3)]
    assert detections[0].pred_keypoint_heatmaps.shape == (2, K, 20, 20)
    assert not any(g.has("pred_keypoints") for g in given)


def test_the_loss_is_a_cross_entropy_over_the_cells_of_visible_keypoints(make):
    proposals = foreground(make, 3)
    proposals.gt_keypoints.tensor[0, 1, 2] = 0  # not labeled
    proposals.gt_keypoints.tensor[2, 3, :2] = 1000  # outside of the proposal
    cells, valid = proposals.gt_keypoints.to_heatmap(proposals.proposal_boxes.tensor, 8)
    logits = torch.zeros(3, K, 64).scatter(2, cells[..., None], 50.0).view(3, K, 8, 8)
    assert keypoint_rcnn_loss(logits, [proposals], None) < 1e-6
    uniform = keypoint_rcnn_loss(torch.zeros(3, K, 8, 8), [proposals], None)
    torch.testing.assert_close(uniform, torch.tensor(64.0).log())
    summed = keypoint_rcnn_loss(torch.zeros(3, K, 8, 8), [proposals], 2.0)
    torch.testing.assert_close(summed, uniform * valid.sum() / 2)


def test_numeric_normalizer_is_multiplied_by_the_number_of_images(make):
    module, x, proposals = head(loss_normalizer=4), torch.randn(2, 4, 5, 5), foreground(make, 2)
    alone = module(x, [proposals])["loss_keypoint"]
    torch.testing.assert_close(module(x, [empty(), proposals])["loss_keypoint"], alone / 2)


@pytest.mark.parametrize("normalizer", ["visible", 3])
@pytest.mark.parametrize("hidden", [True, False])
def test_loss_without_keypoints_is_a_connected_zero(make, normalizer, hidden):
    module = head(loss_normalizer=normalizer)
    proposals = foreground(make, 2) if hidden else empty()
    if hidden:
        proposals.gt_keypoints.tensor[..., 2] = 0
    loss = module(torch.randn(len(proposals), 4, 5, 5), [proposals])["loss_keypoint"]
    loss.backward()
    assert loss == 0
    assert all(p.grad is not None and (p.grad == 0).all() for p in module.parameters())


def test_keypoints_are_at_the_maximum_of_the_heatmap():
    logits = torch.zeros(1, 1, 8, 8)
    logits[0, 0, 2, 5] = 20
    detections = [Instances(SIZE, pred_boxes=Boxes([[8.0, 4, 24, 20]]), pred_classes=torch.zeros(1).long())]
    keypoint_rcnn_inference(logits, detections)
    x, y, score = detections[0].pred_keypoints[0, 0].tolist()
    assert abs(x - (8 + 5.5 * 2)) <= 1 and abs(y - (4 + 2.5 * 2)) <= 1 and score > 0


@pytest.mark.parametrize("normalizer", ["hidden", 0, -1.0, None, True])
def test_invalid_loss_normalizer_raises(normalizer):
    with pytest.raises(ValueError, match="loss_normalizer"):
        head(loss_normalizer=normalizer)


def test_heatmaps_that_are_not_square_raise(make):
    with pytest.raises(ValueError, match="square"):
        keypoint_rcnn_loss(torch.zeros(1, K, 4, 5), [foreground(make, 1)], None)
