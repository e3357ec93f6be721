import numpy as np
import pytest
import torch

from hydet.structures import BitMasks, PolygonMasks, rasterize_polygons_within_box

SQUARE = [2.0, 3.0, 12.0, 3.0, 12.0, 13.0, 2.0, 13.0]


def test_bounding_boxes_and_areas():
    masks = PolygonMasks([[SQUARE], [[-9, -8, -3, -8, -3, -2]], []])
    assert masks.get_bounding_boxes().tensor.tolist() == [[2, 3, 12, 13], [-9, -8, -3, -2], [0, 0, 0, 0]]
    assert masks.area().tolist() == [100, 18, 0]


@pytest.mark.parametrize(
    "polygons, error",
    [
        (np.zeros((1, 6)), TypeError),
        ([np.zeros(6)], TypeError),
        ([[[0, 0, 1, 1]]], ValueError),
        ([[[0, 0, 1, 1, 2, 2, 3]]], ValueError),
        ([[[0, 0, 1, float("nan"), 2, 2]]], ValueError),
    ],
)
def test_malformed_polygons_raise(polygons, error):
    with pytest.raises(error, match="polygon"):
        PolygonMasks(polygons)


def test_indexing(star):
    masks = PolygonMasks([[star(i)] for i in range(4)])
    areas = masks.area().tolist()
    for item, expected in (
        (1, [1]),
        (-1, [3]),
        ([3, 0], [3, 0]),
        (slice(2), [0, 1]),
        (torch.tensor([2, 2]), [2, 2]),
        (torch.tensor([True, False, False, True]), [0, 3]),
        (np.array([False, False, True, False]), [2]),
        (torch.zeros(0), []),
        ([], []),
    ):
        assert masks[item].area().tolist() == [areas[i] for i in expected]
    for wrong in (torch.ones(3, dtype=torch.bool), torch.tensor([0.5]), 4):
        with pytest.raises(IndexError):
            masks[wrong]


def test_crop_of_full_image_equals_rasterization(star):
    masks = PolygonMasks([[star(0)], [star(1), star(2)], []])
    whole = torch.tensor([[0.0, 0, 40, 40]]).expand(3, 4)
    expected = BitMasks.from_polygon_masks(masks, 40, 40).tensor
    assert torch.equal(masks.crop_and_resize(whole, 40), expected)
    for mask, polygons in zip(expected, masks):
        assert torch.equal(rasterize_polygons_within_box(polygons, np.array([0, 0, 40, 40]), 40), mask)
    with pytest.raises(ValueError, match="3 masks need as many boxes, got 2"):
        masks.crop_and_resize(whole[:2], 40)
