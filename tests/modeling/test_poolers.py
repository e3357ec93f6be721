import pytest
import torch

from hydet.modeling import ROIPooler
from hydet.modeling.poolers import assign_boxes_to_levels, convert_boxes_to_pooler_format
from hydet.structures import Boxes

STRIDES = (4, 8, 16, 32)


def make_pooler(**options):
    settings = {
        "output_size": 5,
        "scales": [1 / s for s in STRIDES],
        "sampling_ratio": 0,
        "pooler_type": "ROIAlignV2",
        "canonical_box_size": 32,
        "canonical_level": 4,
    }
    return ROIPooler(**(settings | options))


def random_boxes(n, size=128.0):
    near = torch.rand(n, 2) * size * 0.6
    return torch.cat([near, near + 2 + torch.rand(n, 2) * size * 0.35], dim=1)


def make_levels(images=2, channels=3, size=128):
    return [torch.randn(images, channels, size // s, size // s, requires_grad=True) for s in STRIDES]


@pytest.mark.parametrize("kind", ["ROIAlign", "ROIAlignV2", "ROIPool"])
def test_each_box_is_pooled_from_its_level_in_order(kind):
    pooler, levels = make_pooler(pooler_type=kind), make_levels()
    boxes = [Boxes(random_boxes(9)), Boxes(random_boxes(7))]
    pooled = pooler(levels, boxes)
    numbers = assign_boxes_to_levels(boxes, 2, 5, 32, 4)
    assert len(numbers.unique()) > 1
    rois = convert_boxes_to_pooler_format(boxes)
    for i, (roi, level) in enumerate(zip(rois, numbers.tolist(), strict=True)):
        single = ROIPooler(output_size=5, scales=[1 / STRIDES[level]], sampling_ratio=0, pooler_type=kind)
        alone = single([levels[level][int(roi[0])][None]], [Boxes(roi[None, 1:])])
        torch.testing.assert_close(pooled[i : i + 1], alone)


def test_permuted_boxes_give_permuted_results():
    pooler, levels = make_pooler(), make_levels(images=1)
    boxes, order = random_boxes(12), torch.randperm(12)
    torch.testing.assert_close(pooler(levels, [Boxes(boxes[order])]), pooler(levels, [Boxes(boxes)])[order])


@pytest.mark.parametrize("kind", ["ROIAlign", "ROIAlignV2"])
def test_multi_level_op_matches_level_by_level_pooling(kind):
    pooler, levels = make_pooler(pooler_type=kind), make_levels()
    boxes = [Boxes(random_boxes(6)), Boxes(random_boxes(8))]
    rois = convert_boxes_to_pooler_format(boxes)
    one_by_one = pooler._pool_level_by_level(levels, rois, assign_boxes_to_levels(boxes, 2, 5, 32, 4))
    at_once, weights = pooler(levels, boxes), torch.randn(14, 3, 5, 5)
    torch.testing.assert_close(at_once, one_by_one)
    for a, b in zip(
        *(torch.autograd.grad((y * weights).sum(), levels) for y in (at_once, one_by_one)), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_output_of_several_levels_may_have_different_sides():
    assert make_pooler(output_size=(2, 7))(make_levels(), [Boxes(random_boxes(3))] * 2).shape == (6, 3, 2, 7)


def test_box_of_canonical_size_is_assigned_to_the_canonical_level():
    boxes = Boxes([[0, 0, 224, 224], [0, 0, 448, 448], [0, 0, 112, 112], [0, 0, 223, 223]])
    assert assign_boxes_to_levels([boxes], 2, 5, 224, 4).tolist() == [2, 3, 1, 1]


def test_degenerate_boxes_are_assigned_to_the_finest_level():
    boxes = Boxes([[5.0, 5, 5, 9], [9, 9, 3, 12], [float("nan"), 0, 4, 4]])
    assert assign_boxes_to_levels([boxes], 2, 5, 224, 4).tolist() == [0, 0, 0]


def test_huge_boxes_are_assigned_to_the_coarsest_level():
    assert assign_boxes_to_levels([Boxes([[0.0, 0, 1e9, 1e9]])], 2, 5, 224, 4).tolist() == [3]


@pytest.mark.parametrize("counts", [(0, 0), (0, 3), (3, 0)])
def test_result_without_boxes_is_empty_and_connected(counts):
    levels = make_levels()
    pooled = make_pooler()(levels, [Boxes(random_boxes(n)) for n in counts])
    assert pooled.shape == (sum(counts), 3, 5, 5)
    pooled.sum().backward()
    assert all(level.grad is not None and level.grad.isfinite().all() for level in levels)


def test_result_without_images_is_empty():
    levels = [level[:0] for level in make_levels()]
    assert make_pooler()(levels, []).shape == (0, 3, 5, 5)


def test_bfloat16_features_do_not_round_boxes():
    levels = [level.detach().bfloat16() for level in make_levels()]
    boxes = [Boxes(random_boxes(6)), Boxes(random_boxes(2))]
    for kind in ("ROIAlignV2", "ROIPool"):
        pooled = make_pooler(pooler_type=kind)(levels, boxes)
        exact = make_pooler(pooler_type=kind)([level.float() for level in levels], boxes)
        assert pooled.dtype == torch.bfloat16
        torch.testing.assert_close(pooled.float(), exact, rtol=0.01, atol=0.01)


@pytest.mark.parametrize(
    "options",
    [
        {"pooler_type": "ROIalign"},
        {"output_size": (3, 4, 5)},
        {"output_size": 0},
        {"scales": []},
        {"scales": [1 / 4, 1 / 16]},
        {"scales": [1 / 8, 1 / 4]},
        {"scales": [0.3, 0.15]},
        {"canonical_box_size": 0},
        {"canonical_level": 0},
    ],
)
def test_invalid_arguments_raise(options):
    with pytest.raises(ValueError):
        make_pooler(**options)


def test_different_numbers_of_maps_or_images_raise():
    with pytest.raises(ValueError, match="expected 4 feature maps"):
        make_pooler()(make_levels()[:2], [Boxes(random_boxes(1))] * 2)
    with pytest.raises(ValueError, match="2 images"):
        make_pooler()(make_levels(), [Boxes(random_boxes(1))])
