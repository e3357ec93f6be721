import pytest
import torch

from hydet.modeling import select_foreground_proposals, select_proposals_with_visible_keypoints
from hydet.modeling.selection.foreground import carry_ground_truth
from hydet.structures import Boxes, Instances, Keypoints

SIZE = (9, 9)


def test_select_foreground_proposals():
    proposals = Instances(
        SIZE, proposal_boxes=Boxes(torch.rand(5, 4)), gt_classes=torch.tensor([2, 3, -1, 0, 3])
    )
    (foreground,), (mask,) = select_foreground_proposals([proposals], bg_label=3)
    assert foreground.gt_classes.tolist() == [2, 0] and mask.tolist() == [True, False, False, True, False]


def test_select_foreground_proposals_without_classes_raises():
    with pytest.raises(ValueError, match="gt_classes"):
        select_foreground_proposals([Instances(SIZE, proposal_boxes=Boxes([]))], bg_label=3)


def test_select_proposals_with_visible_keypoints():
    box = [1.0, 1, 5, 5]
    keypoints = [
        [[2.0, 2, 2], [9, 9, 2]],  # one inside the box
        [[2, 2, 0], [3, 3, 0]],  # none labeled
        [[-5, 2, 2], [9, 3, 2]],  # none inside
        [[5, 5, 1], [0, 0, 0]],  # one on the corner
    ]
    proposals = Instances(
        SIZE, proposal_boxes=Boxes([box] * 4), gt_keypoints=Keypoints(keypoints), index=torch.arange(4)
    )
    empty = Instances(SIZE, proposal_boxes=Boxes([]))
    selected, from_empty = select_proposals_with_visible_keypoints([proposals, empty])
    assert selected.index.tolist() == [0, 3]
    assert len(from_empty) == 0 and len(proposals) == 4


def test_carry_ground_truth():
    labeled, detections = Instances(SIZE, gt_classes=torch.zeros(0)), Instances(SIZE, scores=torch.zeros(0))
    assert carry_ground_truth([detections, labeled])
    assert not carry_ground_truth([detections]) and not carry_ground_truth([])
