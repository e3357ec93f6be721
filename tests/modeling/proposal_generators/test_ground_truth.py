import pytest
import torch

from hydet.modeling import add_ground_truth_to_proposals, add_ground_truth_to_proposals_single_image
from hydet.structures import Boxes, Instances


def proposals(**fields):
    return Instances((60, 80), proposal_boxes=Boxes(torch.rand(3, 4)), **fields)


def test_ground_truth_boxes_are_appended_to_the_proposals():
    given = proposals(objectness_logits=torch.randn(3))
    gt = Instances((60, 80), gt_boxes=Boxes([[1.0, 2, 3, 4]]), gt_classes=torch.tensor([7]))
    (joined,) = add_ground_truth_to_proposals([gt], [given])
    assert len(given) == 3
    assert set(joined.get_fields()) == {"proposal_boxes", "objectness_logits"}
    assert joined.proposal_boxes.tensor[3].tolist() == [1, 2, 3, 4]
    assert joined.objectness_logits[3].item() == pytest.approx(23.0259, abs=1e-3)


def test_plain_boxes_are_appended_to_proposals_without_scores():
    joined = add_ground_truth_to_proposals_single_image(Boxes([[1.0, 2, 3, 4]]), proposals())
    assert len(joined) == 4
    assert len(add_ground_truth_to_proposals_single_image(Boxes([]), proposals())) == 3


def test_fields_that_the_ground_truth_lacks_raise():
    gt = Instances((60, 80), gt_boxes=Boxes([[1.0, 2, 3, 4]]))
    with pytest.raises(ValueError, match="'level'"):
        add_ground_truth_to_proposals([gt], [proposals(level=torch.arange(3))])
    with pytest.raises(ValueError, match="1 images"):
        add_ground_truth_to_proposals([gt], [])
