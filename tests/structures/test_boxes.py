import pytest
import torch

from hydet.structures import (
    Boxes,
    matched_pairwise_iou,
    pairwise_intersection,
    pairwise_ioa,
    pairwise_iou,
    pairwise_point_box_distance,
)


def random_boxes(n, seed=0, size=50.0):
    g = torch.Generator().manual_seed(seed)
    near = torch.rand(n, 2, generator=g) * size
    return torch.cat([near, near + 1 + torch.rand(n, 2, generator=g) * size], dim=1)


@pytest.mark.parametrize("empty", [[], torch.zeros(0), torch.zeros(0, 4), torch.zeros(0, 0)])
def test_empty_inputs_have_zero_boxes(empty):
    boxes = Boxes(empty)
    assert boxes.tensor.shape == (0, 4) and len(boxes) == 0
    assert boxes.area().shape == (0,) and boxes.nonempty().shape == (0,)


@pytest.mark.parametrize("wrong", [torch.zeros(4), torch.zeros(2, 5), torch.zeros(1, 2, 4), [[1.0, 2.0]]])
def test_wrong_shapes_raise(wrong):
    with pytest.raises(ValueError, match=r"\(N, 4\)"):
        Boxes(wrong)


def test_boxes_are_float32_and_share_memory_if_possible():
    tensor = random_boxes(3)
    assert Boxes(tensor).tensor is tensor
    assert Boxes(tensor.double()).tensor.dtype == torch.float32
    assert Boxes(tensor.long()).tensor.dtype == torch.float32


def test_clip_is_idempotent_and_keeps_input_tensor():
    tensor = random_boxes(20) - 25
    before = tensor.clone()
    boxes = Boxes(tensor)
    boxes.clip((30, 40))
    once = boxes.tensor
    boxes.clip((30, 40))
    assert torch.equal(boxes.tensor, once) and torch.equal(tensor, before)
    assert once.min() >= 0 and once[:, 0::2].max() <= 40 and once[:, 1::2].max() <= 30


def test_scale_is_invertible():
    boxes = Boxes(random_boxes(5))
    before = boxes.clone()
    boxes.scale(2.0, 0.25)
    torch.testing.assert_close(boxes.area(), before.area() / 2)
    boxes.scale(0.5, 4.0)
    torch.testing.assert_close(boxes.tensor, before.tensor)


def test_indexing_returns_boxes():
    boxes = Boxes(random_boxes(6))
    for item in (2, -1, torch.tensor(2), slice(1, 3), torch.tensor([0, 0, 5]), torch.arange(6) > 3):
        assert isinstance(boxes[item], Boxes) and boxes[item].tensor.ndim == 2
    assert len(boxes[torch.zeros(6, dtype=torch.bool)]) == 0
    with pytest.raises(IndexError):
        boxes[6]
    with pytest.raises(ValueError, match="dimensions"):
        boxes[None]


def test_cat_inverts_splitting():
    boxes = Boxes(random_boxes(6))
    assert torch.equal(Boxes.cat([boxes[:2], boxes[2:2], boxes[2:]]).tensor, boxes.tensor)
    assert Boxes.cat([]).tensor.shape == (0, 4)
    with pytest.raises(TypeError, match="Tensor"):
        Boxes.cat([boxes, boxes.tensor])


def test_iou_is_symmetric_bounded_and_1_on_diagonal():
    a, b = random_boxes(7), random_boxes(5, seed=1)
    iou = pairwise_iou(Boxes(a), Boxes(b))
    torch.testing.assert_close(iou, pairwise_iou(Boxes(b), Boxes(a)).T)
    torch.testing.assert_close(pairwise_iou(a, a).diagonal(), torch.ones(7))
    assert iou.min() >= 0 and iou.max() <= 1
    torch.testing.assert_close(pairwise_iou(a, b), iou)  # plain tensors do as well
    torch.testing.assert_close(matched_pairwise_iou(Boxes(a[:5]), Boxes(b)), iou[:5].diagonal())


def test_ioa_divides_by_area_of_second_box():
    big, small = Boxes([[0.0, 0, 10, 10]]), Boxes([[2.0, 2, 4, 4]])
    assert pairwise_ioa(big, small).item() == 1.0
    assert pairwise_ioa(small, big).item() == pytest.approx(0.04)
    assert pairwise_intersection(big, small).item() == 4.0


def test_degenerate_boxes_have_zero_iou_without_nan():
    points = torch.tensor([[5.0, 5, 5, 5], [3.0, 3, 3, 9], [9.0, 9, 2, 2]], requires_grad=True)
    for function in (pairwise_iou, pairwise_ioa):
        assert torch.equal(function(points[:2], points[:2]), torch.zeros(2, 2))
    iou = matched_pairwise_iou(points, points)
    assert torch.equal(iou[:2], torch.zeros(2))
    iou.sum().backward()
    assert points.grad.isfinite().all()


def test_matched_iou_needs_equal_counts():
    with pytest.raises(ValueError, match="3 and 2"):
        matched_pairwise_iou(random_boxes(3), random_boxes(2))


@pytest.mark.parametrize("n, m", [(0, 3), (3, 0), (0, 0)])
def test_pairwise_functions_of_empty_sets(n, m):
    a, b = Boxes(random_boxes(n)), Boxes(random_boxes(m))
    for function in (pairwise_iou, pairwise_ioa, pairwise_intersection):
        assert function(a, b).shape == (n, m)
    assert pairwise_point_box_distance(torch.zeros(n, 2), b).shape == (n, m, 4)


def test_point_distances_are_positive_inside_only():
    boxes = Boxes(random_boxes(4))
    distance = pairwise_point_box_distance(boxes.get_centers(), boxes)
    assert (distance.diagonal().amin(dim=0) > 0).all()
    assert (pairwise_point_box_distance(torch.tensor([[-1.0, -1.0]]), boxes).amin(dim=2) < 0).all()


def test_pairwise_iou_exports_with_dynamic_count():
    a, b = random_boxes(4), random_boxes(3, seed=2)

    class Overlap(torch.nn.Module):
        def forward(self, boxes1, boxes2):
            return pairwise_iou(boxes1, boxes2)

    n = torch.export.Dim("n", min=2)
    program = torch.export.export(Overlap(), (Boxes(a), Boxes(b)), dynamic_shapes=([{0: n}], [None]))
    bigger = random_boxes(9, seed=3)
    torch.testing.assert_close(program.module()(Boxes(bigger), Boxes(b)), pairwise_iou(bigger, b))
