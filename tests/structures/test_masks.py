import numpy as np
import pytest
import torch
from pycocotools import mask as reference

from hydet.structures import (
    BitMasks,
    Boxes,
    PolygonMasks,
    ROIMasks,
    polygons_to_bitmask,
    rasterize_polygons_within_box,
)

SQUARE = [2.0, 3.0, 12.0, 3.0, 12.0, 13.0, 2.0, 13.0]


def star(seed, center=(20.0, 20.0), radius=15.0, points=7):
    rng = np.random.RandomState(seed)
    angle = np.sort(rng.uniform(0, 2 * np.pi, points))
    reach = radius * rng.uniform(0.3, 1.0, points)
    return (np.asarray(center) + np.stack([np.cos(angle), np.sin(angle)], 1) * reach[:, None]).reshape(-1)


@pytest.mark.parametrize("seed", range(5))
def test_rasteriser_equals_pycocotools(seed):
    polygons = [star(seed), star(seed + 100, center=(30.0, 5.0))]
    codes = reference.merge(reference.frPyObjects([p.tolist() for p in polygons], 30, 40))
    assert np.array_equal(polygons_to_bitmask(polygons, 30, 40), reference.decode(codes).astype(bool))


def test_a_square_of_whole_pixels_is_filled_exactly():
    mask = polygons_to_bitmask([np.array(SQUARE)], 16, 20)
    assert mask.shape == (16, 20) and mask.dtype == bool
    assert mask.sum() == 100 and mask[3:13, 2:12].all()
    assert not polygons_to_bitmask([], 4, 5).any()
    with pytest.raises(ValueError, match="4 numbers"):
        polygons_to_bitmask([np.array([0.0, 0, 3, 3])], 4, 5)


def test_objects_with_and_without_polygons_keep_their_order():
    objects = [[], [np.array(SQUARE)], [], [star(1), star(2)], [star(3)]]
    masks = BitMasks.from_polygon_masks(PolygonMasks(objects), 40, 40)
    for mask, polygons in zip(masks, objects):
        assert np.array_equal(mask.numpy(), polygons_to_bitmask(polygons, 40, 40))
    assert masks.nonempty().tolist() == PolygonMasks(objects).nonempty().tolist()
    assert BitMasks.from_polygon_masks([[], []], 4, 5).tensor.shape == (2, 4, 5)
    assert BitMasks.from_polygon_masks([], 4, 5).image_size == (4, 5)


def test_polygon_boxes_and_areas():
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
def test_malformed_polygons_are_refused(polygons, error):
    with pytest.raises(error, match="polygon"):
        PolygonMasks(polygons)


def test_polygon_indexing():
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


def test_polygon_crop_of_the_whole_image_is_its_raster():
    masks = PolygonMasks([[star(0)], [star(1), star(2)], []])
    whole = torch.tensor([[0.0, 0, 40, 40]]).expand(3, 4)
    expected = BitMasks.from_polygon_masks(masks, 40, 40).tensor
    assert torch.equal(masks.crop_and_resize(whole, 40), expected)
    for mask, polygons in zip(expected, masks):
        assert torch.equal(rasterize_polygons_within_box(polygons, np.array([0, 0, 40, 40]), 40), mask)
    with pytest.raises(ValueError, match="3 masks need as many boxes, got 2"):
        masks.crop_and_resize(whole[:2], 40)


def test_bitmask_crop_agrees_with_polygon_crop():
    polygons = [[star(i, radius=18.0)] for i in range(4)]
    boxes = PolygonMasks(polygons).get_bounding_boxes().tensor
    from_bits = BitMasks.from_polygon_masks(polygons, 40, 40).crop_and_resize(boxes, 14)
    from_polygons = PolygonMasks(polygons).crop_and_resize(boxes, 14)
    assert (from_bits == from_polygons).float().mean() > 0.9


def test_bitmask_crop_in_pieces(monkeypatch):
    g = torch.Generator().manual_seed(0)
    masks = BitMasks(torch.rand(5, 12, 16, generator=g) > 0.4)
    boxes = torch.tensor([[1.0, 2, 9, 11]]).repeat(5, 1) + torch.rand(5, 1, generator=g)
    at_once = masks.crop_and_resize(Boxes(boxes), 7)
    monkeypatch.setattr("hydet.structures.masks._CROP_PIXELS", 2 * 12 * 16)
    assert torch.equal(masks.crop_and_resize(boxes, 7), at_once)
    assert masks[:0].crop_and_resize(boxes[:0], 7).shape == (0, 7, 7)


def test_bitmask_boxes():
    masks = torch.zeros(4, 6, 8)
    masks[0, 2:4, 3:7] = 1
    masks[1, 5, 7] = 2
    masks[2] = 1
    boxes = BitMasks(masks).get_bounding_boxes().tensor
    assert boxes.tolist() == [[3, 2, 7, 4], [7, 5, 8, 6], [0, 0, 8, 6], [0, 0, 0, 0]]
    assert BitMasks(torch.zeros(0, 6, 8)).get_bounding_boxes().tensor.shape == (0, 4)
    assert BitMasks(torch.zeros(2, 0, 0)).get_bounding_boxes().tensor.tolist() == [[0] * 4] * 2


def test_bitmask_indexing_and_cat():
    masks = BitMasks(np.arange(4 * 2 * 3).reshape(4, 2, 3) % 5)
    assert masks[1].tensor.shape == masks[torch.tensor(1)].tensor.shape == (1, 2, 3)
    assert torch.equal(BitMasks.cat([masks[:1], masks[1:]]).tensor, masks.tensor)
    assert [m.shape for m in masks] == [(2, 3)] * 4
    for wrong, error in (([], ValueError), ([masks, masks.tensor], TypeError)):
        with pytest.raises(error):
            BitMasks.cat(wrong)
    with pytest.raises(ValueError, match=r"\(N, H, W\)"):
        BitMasks(torch.zeros(3, 4))


def test_roi_masks_paste_onto_their_boxes():
    masks = ROIMasks(torch.ones(3, 7, 7))
    boxes = torch.tensor([[2.0, 3, 12, 9], [-5, -5, 4, 4], [50, 50, 60, 60]])
    found = masks.to_bitmasks(Boxes(boxes), 16, 20)
    expected = torch.tensor([[2.0, 3, 12, 9], [0, 0, 4, 4], [0, 0, 0, 0]])
    assert torch.equal(found.get_bounding_boxes().tensor, expected)
    assert torch.equal(BitMasks.from_roi_masks(masks, 16, 20, boxes=boxes).tensor, found.tensor)
    assert BitMasks.from_roi_masks(
        masks[0], 16, 20, threshold=0.4
    ).tensor.all()  # without boxes: the whole image
    assert len(masks[torch.tensor([True, False, True])]) == len(ROIMasks.cat([masks[0], masks[2]])) == 2
    with pytest.raises(ValueError, match="as many boxes"):
        masks.to_bitmasks(boxes[:2], 16, 20)
