import pytest
import torch

from hydet.structures import Boxes, RotatedBoxes, pairwise_iou, pairwise_iou_rotated


def random_rotated(n, seed=0):
    g = torch.Generator().manual_seed(seed)
    scale = torch.tensor([60.0, 60, 30, 30, 360])
    return torch.rand(n, 5, generator=g) * scale - torch.tensor([0, 0, -1.0, -1, 180])


def test_wrapped_angles_describe_the_same_boxes():
    boxes = RotatedBoxes(random_rotated(8))
    turned = RotatedBoxes(boxes.tensor + torch.tensor([0, 0, 0, 0, 720.0]))
    turned.normalize_angles()
    torch.testing.assert_close(turned.tensor, boxes.tensor, atol=1e-3, rtol=0)
    assert (turned.tensor[:, 4] >= -180).all() and (turned.tensor[:, 4] < 180).all()


def test_clip_changes_upright_boxes_only_and_matches_boxes():
    tensor = torch.tensor([[5.0, 5, 20, 30, 0], [5, 5, 20, 30, 45], [55, 38, 20, 30, 360.5]])
    given = tensor.clone()
    boxes = RotatedBoxes(tensor)
    boxes.clip((40, 60))
    upright = Boxes([[-5.0, -10, 15, 20]])
    upright.clip((40, 60))
    x1, y1, x2, y2 = upright.tensor[0].tolist()
    assert boxes.tensor[0].tolist() == [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, 0]
    assert torch.equal(boxes.tensor[1], given[1])
    assert boxes.tensor[2].tolist() == [52.5, 31.5, 15, 17, 0.5]
    assert torch.equal(tensor, given)


def test_uniform_scaling_keeps_angles_and_is_invertible():
    boxes = RotatedBoxes(random_rotated(8))
    before = boxes.clone()
    boxes.scale(2.0, 2.0)
    torch.testing.assert_close(
        boxes.tensor, before.tensor * torch.tensor([2.0, 2, 2, 2, 1]), rtol=1e-4, atol=1e-3
    )
    boxes.scale(0.5, 0.5)
    torch.testing.assert_close(boxes.tensor, before.tensor, rtol=1e-4, atol=1e-3)


def test_anisotropic_scaling_is_exact_at_multiples_of_90_degrees():
    boxes = RotatedBoxes([[10.0, 10, 4, 6, 0], [10.0, 10, 4, 6, 90]])
    boxes.scale(2.0, 3.0)
    torch.testing.assert_close(boxes.tensor, torch.tensor([[20.0, 30, 8, 18, 0], [20.0, 30, 12, 12, 90]]))


def test_inside_box_checks_corners():
    boxes = RotatedBoxes([[10.0, 10, 18, 18, 0], [10.0, 10, 18, 18, 45]])
    assert boxes.inside_box((20, 20)).tolist() == [True, False]
    assert boxes.inside_box((20, 20), boundary_threshold=4).tolist() == [True, True]


def test_indexing_and_cat_keep_the_class():
    boxes = RotatedBoxes(random_rotated(5))
    assert isinstance(boxes[0], RotatedBoxes) and isinstance(boxes.clone(), RotatedBoxes)
    assert torch.equal(RotatedBoxes.cat([boxes[:2], boxes[2:]]).tensor, boxes.tensor)
    assert RotatedBoxes([]).tensor.shape == (0, 5)
    assert RotatedBoxes([[1.0, 1, 0, 3, 0]]).nonempty().tolist() == [False]
    with pytest.raises(ValueError, match=r"\(N, 5\)"):
        RotatedBoxes(torch.zeros(2, 4))


def test_iou_of_upright_and_identical_boxes():
    near = torch.rand(6, 2, generator=torch.Generator().manual_seed(0)) * 20
    upright = Boxes(torch.cat([near, near + 12], dim=1))
    rotated = RotatedBoxes(
        torch.cat([upright.get_centers(), torch.full((6, 2), 12.0), torch.zeros(6, 1)], dim=1)
    )
    iou = pairwise_iou_rotated(rotated, rotated)
    torch.testing.assert_close(iou, pairwise_iou(upright, upright), rtol=1e-4, atol=1e-5)
    turned = rotated.tensor + torch.tensor([0, 0, 0, 0, 360.0])
    torch.testing.assert_close(pairwise_iou_rotated(rotated, turned), iou, rtol=1e-4, atol=1e-4)
    assert pairwise_iou_rotated(rotated[:0], rotated).shape == (0, 6)
