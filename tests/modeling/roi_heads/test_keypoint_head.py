import pytest
import torch

from hydet.layers import ShapeSpec
from hydet.modeling import (
    KRCNNConvDeconvUpsampleHead,
    keypoint_rcnn_inference,
    keypoint_rcnn_loss,
    select_proposals_with_visible_keypoints,
)
from hydet.structures import Boxes, Instances, Keypoints

SIZE, K = (40, 50), 4


def head(**options):
    shape = ShapeSpec(channels=4, height=5, width=5)
    return KRCNNConvDeconvUpsampleHead(input_shape=shape, num_keypoints=K, conv_dims=[6], **options)


def foreground(make, count):
    found = make.targets(SIZE, count, num_classes=1)
    found.proposal_boxes = found.gt_boxes
    return found


def empty():
    return Instances(SIZE, proposal_boxes=Boxes([]), gt_classes=torch.zeros(0).long())


@pytest.mark.parametrize("training", [True, False])
def test_ground_truth_decides_between_losses_and_keypoints_not_the_mode(make, training):
    module = head().train(training)
    assert set(module(torch.randn(3, 4, 5, 5), [foreground(make, 3)])) == {"loss_keypoint"}
    given = [
        Instances(SIZE, pred_boxes=Boxes(make.random_boxes(n, SIZE)), pred_classes=torch.zeros(n).long())
        for n in (2, 0, 1)
    ]
    found = module(torch.randn(3, 4, 5, 5), given)
    assert [tuple(f.pred_keypoints.shape) for f in found] == [(2, K, 3), (0, K, 3), (1, K, 3)]
    assert found[0].pred_keypoint_heatmaps.shape == (2, K, 20, 20)
    assert not any(g.has("pred_keypoints") for g in given)


def test_the_loss_is_a_cross_entropy_over_the_cells_of_visible_keypoints(make):
    found = foreground(make, 3)
    found.gt_keypoints.tensor[0, 1, 2] = 0  # not labelled
    found.gt_keypoints.tensor[2, 3, :2] = 1000  # outside
    cells, valid = found.gt_keypoints.to_heatmap(found.proposal_boxes.tensor, 8)
    logits = torch.zeros(3, K, 64).scatter(2, cells[..., None], 50.0).view(3, K, 8, 8)
    assert keypoint_rcnn_loss(logits, [found], None) < 1e-6
    uniform = keypoint_rcnn_loss(torch.zeros(3, K, 8, 8), [found], None)
    torch.testing.assert_close(uniform, torch.tensor(64.0).log())
    summed = keypoint_rcnn_loss(torch.zeros(3, K, 8, 8), [found], 2.0)
    torch.testing.assert_close(summed, uniform * valid.sum() / 2)


def test_a_number_normalises_by_images_too(make):
    module, x, found = head(loss_normalizer=4), torch.randn(2, 4, 5, 5), foreground(make, 2)
    alone = module(x, [found])["loss_keypoint"]
    torch.testing.assert_close(module(x, [empty(), found])["loss_keypoint"], alone / 2)


@pytest.mark.parametrize("normalizer", ["visible", 3])
@pytest.mark.parametrize("hidden", [True, False])
def test_without_keypoints_the_loss_is_a_zero_that_reaches_every_parameter(make, normalizer, hidden):
    module = head(loss_normalizer=normalizer)
    found = foreground(make, 2) if hidden else empty()
    if hidden:
        found.gt_keypoints.tensor[..., 2] = 0
    loss = module(torch.randn(len(found), 4, 5, 5), [found])["loss_keypoint"]
    loss.backward()
    assert loss == 0
    assert all(p.grad is not None and (p.grad == 0).all() for p in module.parameters())


def test_predicted_keypoints_lie_where_the_heat_map_is_highest():
    logits = torch.zeros(1, 1, 8, 8)
    logits[0, 0, 2, 5] = 20
    found = [Instances(SIZE, pred_boxes=Boxes([[8.0, 4, 24, 20]]), pred_classes=torch.zeros(1).long())]
    keypoint_rcnn_inference(logits, found)
    x, y, score = found[0].pred_keypoints[0, 0].tolist()
    assert abs(x - (8 + 5.5 * 2)) <= 1 and abs(y - (4 + 2.5 * 2)) <= 1 and score > 0


def test_proposals_that_see_no_keypoint_are_left_out(make):
    found = foreground(make, 4)
    found.gt_keypoints = Keypoints(found.gt_keypoints.tensor)
    found.gt_keypoints.tensor[1, :, 2] = 0
    found.gt_keypoints.tensor[2, :, 0] = -5
    box = found.proposal_boxes.tensor[3]
    found.gt_keypoints.tensor[3] = torch.tensor([[*box[2:].tolist(), 1.0]] + [[0, 0, 0]] * 3)  # on the corner
    kept, none = select_proposals_with_visible_keypoints([found, empty()])
    torch.testing.assert_close(kept.proposal_boxes.tensor, found.proposal_boxes.tensor[[0, 3]])
    assert len(none) == 0 and len(found) == 4


@pytest.mark.parametrize("normalizer", ["hidden", 0, -1.0, None, True])
def test_other_normalizers_are_refused(normalizer):
    with pytest.raises(ValueError, match="loss_normalizer"):
        head(loss_normalizer=normalizer)


def test_oblong_heat_maps_are_refused(make):
    with pytest.raises(ValueError, match="square"):
        keypoint_rcnn_loss(torch.zeros(1, K, 4, 5), [foreground(make, 1)], None)
