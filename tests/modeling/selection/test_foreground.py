import pytest
import torch

from hydet.modeling import select_foreground_proposals, select_proposals_with_visible_keypoints
from hydet.modeling.selection.foreground import carry_ground_truth
from hydet.structures import Boxes, Instances, Keypoints


def make(classes, **fields):
    boxes = Boxes(torch.tensor([0.0, 0, 10, 10]).repeat(len(classes), 1))
    return Instances((20, 20), proposal_boxes=boxes, gt_classes=torch.tensor(classes), **fields)


def test_foreground_is_neither_background_nor_ignored():
    (selected,), (mask,) = select_foreground_proposals([make([0, 3, -1, 2])], bg_label=3)
    assert selected.gt_classes.tolist() == [0, 2]
    assert mask.tolist() == [True, False, False, True]


def test_proposals_without_classes_raise():
    with pytest.raises(ValueError, match=r"images \[1\] have no gt_classes"):
        select_foreground_proposals([make([0]), Instances((9, 9), proposal_boxes=Boxes([]))], bg_label=3)


def test_only_proposals_with_a_visible_keypoint_inside_are_kept():
    keypoints = torch.tensor(
        [
            [[5.0, 5, 2], [50, 50, 2]],  # one inside
            [[5.0, 5, 0], [50, 50, 2]],  # one inside, not labeled
            [[10.0, 0, 1], [50, 50, 2]],  # one on the edge
            [[11.0, 5, 2], [50, 50, 2]],  # none inside
        ]
    )
    proposals = make([0, 1, 2, 0], gt_keypoints=Keypoints(keypoints))
    empty = make([])
    selected, same = select_proposals_with_visible_keypoints([proposals, empty])
    assert selected.gt_classes.tolist() == [0, 2]
    assert same is empty


def test_detections_carry_no_ground_truth():
    assert carry_ground_truth([make([0])])
    assert not carry_ground_truth([Instances((9, 9), pred_boxes=Boxes([]))])


def test_detections_with_leftover_ground_truth_are_not_labeled_proposals():
    boxes, classes = Boxes(torch.rand(2, 4)), torch.zeros(2).long()
    assert not carry_ground_truth([Instances((9, 9), pred_boxes=boxes, gt_classes=classes)])
