"""Clipping and angles of boxes on plain tensors."""

import pytest
import torch

from hydet.structures import Boxes, RotatedBoxes
from hydet.structures.box_ops import clip_boxes, clip_rotated_boxes, wrap_angles


def random_boxes(generator, *shape):
    corners = torch.rand(*shape, 2, 2, generator=generator) * 160 - 40
    return torch.cat([corners.amin(-2), corners.amax(-2)], dim=-1)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def test_clipped_boxes_lie_inside_the_image_and_boxes_inside_stay(generator):
    boxes = random_boxes(generator, 200)
    clipped = clip_boxes(boxes, 60, 80)
    assert (clipped >= 0).all() and (clipped[:, 0::2] <= 80).all() and (clipped[:, 1::2] <= 60).all()
    inside = (boxes >= 0).all(1) & (boxes[:, 2] <= 80) & (boxes[:, 3] <= 60)
    assert torch.equal(clipped[inside], boxes[inside])
    assert torch.equal(clip_boxes(clipped, 60, 80), clipped)


def test_a_box_outside_the_image_becomes_empty():
    assert clip_boxes(torch.tensor([[90.0, 10.0, 120.0, 20.0]]), 60, 80).tolist() == [
        [80.0, 10.0, 80.0, 20.0]
    ]


def test_limits_per_box_equal_limits_per_image(generator):
    boxes = random_boxes(generator, 3, 20)
    heights, widths = torch.tensor([[60.0], [50.0], [10.0]]), torch.tensor([[80.0], [40.0], [120.0]])
    together = clip_boxes(boxes, heights, widths)
    for i in range(3):
        assert torch.equal(together[i], clip_boxes(boxes[i], float(heights[i]), float(widths[i])))


def test_nan_stays_nan():
    clipped = clip_boxes(torch.tensor([[float("nan"), 0.0, 5.0, 5.0]]), 4, 4)
    assert clipped[0, 0].isnan() and clipped[0, 1:].tolist() == [0.0, 4.0, 4.0]


def test_containers_clip_with_the_same_functions(generator):
    boxes = Boxes(random_boxes(generator, 20))
    expected = clip_boxes(boxes.tensor, 60, 80)
    boxes.clip((60, 80))
    assert torch.equal(boxes.tensor, expected)
    rotated = RotatedBoxes(torch.rand(20, 5, generator=generator) * 100)
    expected = clip_rotated_boxes(rotated.tensor, 60, 80)
    rotated.clip((60, 80))
    assert torch.equal(rotated.tensor, expected)


@pytest.mark.parametrize("angle", [0.0, 0.9, -1.0, 359.5])
def test_nearly_upright_rotated_boxes_are_clipped_and_never_grow(angle):
    box = torch.tensor([[5.0, 30.0, 40.0, 20.0, angle]])
    clipped = clip_rotated_boxes(box, 60, 80)[0]
    assert clipped[:4].tolist() == [12.5, 30.0, 25.0, 20.0]
    assert abs(float(clipped[4])) <= 1.0


@pytest.mark.parametrize("angle", [1.5, 45.0, -90.0, 180.0])
def test_turned_boxes_keep_their_shape(angle):
    box = torch.tensor([[5.0, 30.0, 40.0, 20.0, angle]])
    assert torch.equal(clip_rotated_boxes(box, 60, 80)[:, :4], box[:, :4])


def test_wrapped_angles_are_equal_up_to_full_turns():
    angles = torch.tensor([-540.0, -180.0, -1.0, 0.0, 179.0, 180.0, 181.0, 360.0, 725.0])
    wrapped = wrap_angles(angles)
    assert (wrapped >= -180).all() and (wrapped < 180).all()
    assert ((angles - wrapped) % 360 == 0).all()
    assert torch.equal(wrap_angles(wrapped), wrapped)


def test_no_boxes():
    assert clip_boxes(torch.zeros(0, 4), 5, 5).shape == (0, 4)
    assert clip_rotated_boxes(torch.zeros(0, 5), 5, 5).shape == (0, 5)
