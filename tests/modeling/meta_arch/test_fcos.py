import pytest
import torch

from hydet.structures import Boxes, Instances


def test_losses_of_tiny_objects_are_finite(fcos, dense_batch):
    batch = dense_batch((2, 0))
    batch[0]["instances"].gt_boxes = Boxes([[10.0, 10, 11, 11], [30, 30, 30.5, 60]])
    assert all(value.isfinite() for value in fcos()(batch).values())


def test_a_location_is_assigned_to_the_smallest_object(fcos):
    model = fcos(center_sampling_radius=100)
    anchors = model.anchor_generator([torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 4, 4)])
    gt = Instances(
        (64, 64),
        gt_boxes=Boxes([[0.0, 0.0, 62.0, 30.0], [0.0, 0.0, 62.0, 29.9]]),
        gt_classes=torch.tensor([0, 1]),
    )
    labels, boxes = model.label_anchors(anchors, [gt])
    is_positive = labels[0] != model.num_classes
    assert is_positive.any()
    assert (labels[0][is_positive] == 1).all()  # areas differ by 6 square pixels
    assert (boxes[0][~is_positive] == 0).all()


def test_centerness_is_one_in_the_center_and_zero_outside(fcos):
    anchors = [Boxes([[4.0, 4, 12, 12], [0, 4, 8, 12], [40, 40, 48, 48]])]
    matched = torch.tensor([[0.0, 0, 16, 16]]).expand(3, 4)
    targets = fcos().compute_ctrness_targets(anchors, [matched])
    assert targets[0].tolist() == pytest.approx([1.0, (4 / 12) ** 0.5, 0.0])
