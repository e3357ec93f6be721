import numpy as np
import pytest
import torch

from hydet.data import Proposals
from hydet.data.mapping.instances import build_instances, build_proposals
from hydet.data.mapping.regions import Regions
from hydet.data.mapping.sample import Sample
from hydet.structures import RotatedBoxes

from .conftest import H, W, square


def make_sample(boxes, **parts):
    boxes = torch.tensor(boxes).reshape(-1, 4)
    image = torch.zeros(3, H, W, dtype=torch.uint8)
    return Sample(image=image, boxes=boxes, classes=torch.arange(len(boxes)), **parts)


def build(sample, mask_format=None):
    return build_instances(sample, mask_format=mask_format, min_box_size=1e-5)


def test_boxes_are_clipped_and_empty_ones_dropped():
    sample = make_sample([[-5.0, 2, 10, 50], [50, 0, 60, 9], [4, 4, 4, 9]])
    instances = build(sample)
    assert instances.gt_classes.tolist() == [0] and instances.image_size == (H, W)
    assert instances.gt_boxes.tensor.tolist() == [[0, 2, 10, H]]
    assert sample.boxes[0].tolist() == [-5, 2, 10, 50], "the sample stays as it was"


@pytest.mark.parametrize("mask_format", ["bitmask", "polygon"])
def test_a_cut_box_is_replaced_by_the_box_around_the_rest_of_its_mask(mask_format):
    triangle = [np.array([-20.0, 0, 20, 0, -20, 20])]  # inside the image it is 20 wide and 10 high
    sample = make_sample([[-20.0, 0, 20, 20]], regions=Regions([triangle]))
    expected = torch.tensor([[0.0, 0, 20, 10]])  # pixels of the bitmap start at whole numbers
    torch.testing.assert_close(build(sample, mask_format).gt_boxes.tensor, expected, atol=1, rtol=0)


@pytest.mark.parametrize("mask_format", ["bitmask", "polygon"])
def test_objects_with_empty_masks_are_dropped_if_masks_are_used(mask_format):
    boxes = [[0.0, 0, 9, 9], [2, 2, 8, 8]]
    regions = Regions([[], square(2, 2, 8, 8)])
    assert build(make_sample(boxes, regions=regions), mask_format).gt_classes.tolist() == [1]
    assert build(make_sample(boxes)).gt_classes.tolist() == [0, 1]


def test_keypoints_outside_the_image_do_not_count():
    keypoints = torch.tensor([[[5.0, 5, 2], [41, 5, 2], [W, H, 1], [6, 6, 0]]])
    instances = build(make_sample([[0.0, 0, 9, 9]], keypoints=keypoints))
    assert instances.gt_keypoints.tensor[0].tolist() == [[5, 5, 2], [0, 0, 0], [W, H, 1], [0, 0, 0]]


def test_rotated_boxes_outside_are_dropped_and_others_stay_whole():
    corner = [38.0, 28.0, 10, 10, 30]  # crosses two borders
    beside = [47.0, 37.0, 30, 1, 45]  # the upright box around it overlaps the image, the box does not
    thin = [39.5, 15.0, 8, 4, 0.5]  # nearly upright: clipped
    far = [90.0, 90.0, 10, 10, 20]
    rotated = torch.tensor([corner, beside, thin, far, [20.0, 15, 4, 4, 350]])
    instances = build(make_sample([[0.0, 0, 9, 9]] * 5, rotated_boxes=rotated))
    assert isinstance(instances.gt_boxes, RotatedBoxes) and instances.gt_classes.tolist() == [0, 2, 4]
    expected = [corner, [(35.5 + W) / 2, 15, W - 35.5, 4, 0.5], [20, 15, 4, 4, -10]]
    torch.testing.assert_close(instances.gt_boxes.tensor, torch.tensor(expected))


@pytest.mark.parametrize("mask_format", ["bitmask", "polygon", None])
def test_no_objects(mask_format):
    sample = make_sample([], regions=Regions([]), keypoints=torch.zeros(0, 2, 3))
    instances = build(sample, mask_format)
    assert len(instances) == 0 and instances.gt_boxes.tensor.shape == (0, 4)
    assert instances.gt_keypoints.tensor.shape == (0, 2, 3)


def test_the_best_proposals_that_remain_are_selected():
    boxes = torch.tensor([[1.0, 2, 11, 12], [-5, 0, 5, 10], [50, 0, 60, 9], [3, 8, 3, 20], [35, 5, 55, 45]])
    proposals = Proposals(boxes=boxes, objectness_logits=torch.tensor([0.5, 3, 9, 8, 1]))
    instances = build_proposals(proposals, (H, W), max_proposals=2, min_box_size=1e-5)
    assert set(instances.get_fields()) == {"proposal_boxes", "objectness_logits"}
    assert instances.objectness_logits.tolist() == [3, 1]
    assert instances.proposal_boxes.tensor.tolist() == [[0, 0, 5, 10], [35, 5, W, H]]
    assert proposals.boxes[1].tolist() == [-5, 0, 5, 10]


def test_no_proposals():
    proposals = Proposals(boxes=torch.zeros(0, 4), objectness_logits=torch.zeros(0))
    instances = build_proposals(proposals, (H, W), max_proposals=5, min_box_size=1e-5)
    assert len(instances) == 0 and instances.proposal_boxes.tensor.shape == (0, 4)
