import numpy as np
import pytest
import torch

from hydet.modeling import DatasetMapperTTA, ResizeAndFlip
from hydet.structures import Boxes, Instances


def test_copies_are_resized_then_flipped():
    mapper = DatasetMapperTTA(min_sizes=[20, 30], max_size=45, flip=True)
    entry = {"image": (torch.rand(3, 10, 20) * 255).byte(), "height": 100, "width": 200, "image_id": 7}
    copies = mapper(entry)
    assert [tuple(copy["image"].shape) for copy in copies] == [(3, 20, 40)] * 2 + [(3, 23, 45)] * 2
    assert [copy["transforms"].flip for copy in copies] == [False, True, False, True]
    assert torch.equal(copies[1]["image"], copies[0]["image"].flip(2))
    assert all(copy["transforms"].source == (100, 200) for copy in copies)
    assert all(copy["transforms"].target == tuple(copy["image"].shape[1:]) for copy in copies)
    assert all(copy["image_id"] == 7 for copy in copies)
    assert "transforms" not in entry and entry["image"].shape == (3, 10, 20)


def test_output_frame_is_that_of_the_image_by_default():
    (copy,) = DatasetMapperTTA(min_sizes=[10], max_size=100, flip=False)({"image": torch.rand(3, 10, 20)})
    assert copy["transforms"] == ResizeAndFlip((10, 20), (10, 20), False)


def test_float_images_are_interpolated():
    (copy,) = DatasetMapperTTA(min_sizes=[20], max_size=100, flip=False)(
        {"image": torch.full((3, 10, 10), 0.5)}
    )
    assert copy["image"].dtype == torch.float32 and torch.all(copy["image"] == 0.5)


@pytest.mark.parametrize("flip", [False, True])
def test_invert_boxes_inverts_apply_boxes(flip):
    transform = ResizeAndFlip((100, 200), (50, 150), flip)
    boxes = torch.tensor([[20.0, 10, 60, 30], [0, 0, 200, 100]])
    expected = [[105.0, 5, 135, 15], [0, 0, 150, 50]] if flip else [[15.0, 5, 45, 15], [0, 0, 150, 50]]
    assert transform.apply_boxes(boxes).tolist() == expected
    torch.testing.assert_close(transform.invert_boxes(transform.apply_boxes(boxes)), boxes)


@pytest.mark.parametrize("flip", [False, True])
def test_rotated_boxes_are_scaled_and_flipped(flip):
    transform = ResizeAndFlip((100, 200), (50, 100), flip)
    boxes = torch.tensor([[60.0, 20, 40, 10, 30], [60, 20, 40, 10, -180]])
    expected = (
        [[70.0, 10, 20, 5, -30], [70, 10, 20, 5, -180]]
        if flip
        else [[30, 10, 20, 5, 30], [30, 10, 20, 5, -180]]
    )
    moved = transform.apply_boxes(boxes)
    torch.testing.assert_close(wrap(moved), wrap(torch.tensor(expected, dtype=torch.float32)))
    torch.testing.assert_close(wrap(transform.invert_boxes(moved)), wrap(boxes))


def wrap(boxes):
    """Return centers and sides, and sine and cosine of the angle: -180 and 180 degrees are the same."""
    angle = boxes[:, 4:].deg2rad()
    return torch.cat([boxes[:, :4], angle.sin(), angle.cos()], dim=1)


def test_proposals_follow_the_image():
    proposals = Instances(
        (10, 20), proposal_boxes=Boxes([[2.0, 2, 6, 4]]), objectness_logits=torch.tensor([1.5])
    )
    entry = {"image": torch.rand(3, 10, 20), "height": 100, "width": 200, "proposals": proposals}
    plain, flipped = DatasetMapperTTA(min_sizes=[20], max_size=100, flip=True)(entry)
    assert plain["proposals"].proposal_boxes.tensor.tolist() == [[4, 4, 12, 8]]
    assert flipped["proposals"].proposal_boxes.tensor.tolist() == [[28, 4, 36, 8]]
    assert flipped["proposals"].image_size == (20, 40) and flipped["proposals"].objectness_logits == 1.5
    assert entry["proposals"].proposal_boxes.tensor.tolist() == [[2, 2, 6, 4]]


def test_empty_min_sizes_raises():
    with pytest.raises(ValueError, match="min_sizes"):
        DatasetMapperTTA(min_sizes=[], max_size=100, flip=True)


@pytest.mark.parametrize("flip", [False, True])
def test_apply_box_and_inverse_map_arrays(flip):
    transform = ResizeAndFlip((10, 20), (20, 60), flip)
    boxes = np.array([[1, 2, 4, 6]])
    moved = transform.apply_box(boxes)
    np.testing.assert_allclose(moved, [[48, 4, 57, 12] if flip else [3, 4, 12, 12]])
    np.testing.assert_allclose(transform.inverse().apply_box(moved), boxes)
    assert transform.inverse().inverse() == transform
    assert transform.apply_box(boxes.astype(np.float32)).dtype == np.float32
