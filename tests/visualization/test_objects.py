import pytest
import torch

from hydet.structures import BitMasks, Boxes, Instances, Keypoints
from hydet.visualization.objects import objects_from_ground_truth, objects_from_predictions

from .conftest import make_predictions


def test_predictions_are_rescaled_to_the_image():
    masks = torch.zeros(2, 80, 120, dtype=torch.bool)
    masks[0, 20:60, 20:60] = True
    keypoints = torch.tensor([[[30.0, 30, 0.9]], [[80.0, 40, 0.01]]])
    objects = objects_from_predictions(
        make_predictions(pred_masks=BitMasks(masks), pred_keypoints=keypoints), (160, 120), 0.05
    )
    assert objects.count == 2 and objects.boxes[0].tolist() == [20, 40, 60, 120]
    assert objects.masks.shape == (2, 160, 120) and objects.masks[0].sum() == 2 * 40 * 40
    assert objects.keypoints[0, 0, :2].tolist() == [30, 60]
    assert objects.keypoint_styles.tolist() == [[2], [0]]


def test_proposals_have_logits_as_scores():
    proposals = Instances(
        (80, 120), proposal_boxes=Boxes([[4.0, 4, 20, 20]]), objectness_logits=-torch.ones(1)
    )
    objects = objects_from_predictions(proposals, (80, 120), 0.05)
    assert objects.scores.tolist() == [-1] and objects.boxes.shape == (1, 4) and objects.classes is None


@pytest.mark.parametrize("with_boxes", [True, False])
def test_masks_of_regions_are_pasted_into_their_boxes(with_boxes):
    instances = make_predictions(1, pred_masks=torch.ones(1, 1, 14, 14))
    if not with_boxes:
        instances.remove("pred_boxes")
    masks = objects_from_predictions(instances, (80, 120), 0.05).masks
    if not with_boxes:
        assert masks is None
    else:
        assert len(masks) == 1 and masks[torch.tensor([0])][0][25:55, 25:55].all() and not masks[0][:15].any()


def test_ground_truth_keypoints_are_styled_by_visibility():
    keypoints = Keypoints(torch.tensor([[[1.0, 1, 0], [2, 2, 1], [3, 3, 2]]]))
    objects = objects_from_ground_truth(Instances((8, 8), gt_keypoints=keypoints), (8, 8))
    assert objects.keypoint_styles.tolist() == [[0, 1, 2]]
    assert objects.boxes is None and objects.scores is None


def test_select_reorders_every_part():
    objects = objects_from_predictions(make_predictions(3), (80, 120), 0.05)
    selected = objects.select(torch.tensor([2, 0]))
    assert selected.count == 2 and selected.classes.tolist() == [0, 0]
    assert torch.equal(selected.boxes, objects.boxes[[2, 0]]) and selected.masks is None


def test_no_fields():
    assert objects_from_predictions(Instances((8, 8)), (8, 8), 0.05).count == 0
