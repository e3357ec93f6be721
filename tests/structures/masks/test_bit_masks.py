import numpy as np
import pytest
import torch

from hydet.structures import BitMasks, Boxes, PolygonMasks, polygons_to_bitmask

SQUARE = [2.0, 3.0, 12.0, 3.0, 12.0, 13.0, 2.0, 13.0]


def test_from_polygon_masks_keeps_order_with_empty_objects(star):
    objects = [[], [np.array(SQUARE)], [], [star(1), star(2)], [star(3)]]
    masks = BitMasks.from_polygon_masks(PolygonMasks(objects), 40, 40)
    for mask, polygons in zip(masks, objects):
        assert np.array_equal(mask.numpy(), polygons_to_bitmask(polygons, 40, 40))
    assert masks.nonempty().tolist() == PolygonMasks(objects).nonempty().tolist()
    assert BitMasks.from_polygon_masks([[], []], 4, 5).tensor.shape == (2, 4, 5)
    assert BitMasks.from_polygon_masks([], 4, 5).image_size == (4, 5)


def test_crop_agrees_with_polygon_crop(star):
    polygons = [[star(i, radius=18.0)] for i in range(4)]
    boxes = PolygonMasks(polygons).get_bounding_boxes().tensor
    from_bits = BitMasks.from_polygon_masks(polygons, 40, 40).crop_and_resize(boxes, 14)
    from_polygons = PolygonMasks(polygons).crop_and_resize(boxes, 14)
    assert (from_bits == from_polygons).float().mean() > 0.9


def test_crop_in_chunks_equals_single_crop(monkeypatch):
    g = torch.Generator().manual_seed(0)
    masks = BitMasks(torch.rand(5, 12, 16, generator=g) > 0.4)
    boxes = torch.tensor([[1.0, 2, 9, 11]]).repeat(5, 1) + torch.rand(5, 1, generator=g)
    at_once = masks.crop_and_resize(Boxes(boxes), 7)
    monkeypatch.setattr("hydet.structures.masks.bit_masks._CROP_PIXELS", 2 * 12 * 16)
    assert torch.equal(masks.crop_and_resize(boxes, 7), at_once)
    assert masks[:0].crop_and_resize(boxes[:0], 7).shape == (0, 7, 7)


def test_bounding_boxes():
    masks = torch.zeros(4, 6, 8)
    masks[0, 2:4, 3:7] = 1
    masks[1, 5, 7] = 2
    masks[2] = 1
    boxes = BitMasks(masks).get_bounding_boxes().tensor
    assert boxes.tolist() == [[3, 2, 7, 4], [7, 5, 8, 6], [0, 0, 8, 6], [0, 0, 0, 0]]
    assert BitMasks(torch.zeros(0, 6, 8)).get_bounding_boxes().tensor.shape == (0, 4)
    assert BitMasks(torch.zeros(2, 0, 0)).get_bounding_boxes().tensor.tolist() == [[0] * 4] * 2


def test_indexing_and_cat():
    masks = BitMasks(np.arange(4 * 2 * 3).reshape(4, 2, 3) % 5)
    assert masks[1].tensor.shape == masks[torch.tensor(1)].tensor.shape == (1, 2, 3)
    assert torch.equal(BitMasks.cat([masks[:1], masks[1:]]).tensor, masks.tensor)
    assert [m.shape for m in masks] == [(2, 3)] * 4
    for wrong, error in (([], ValueError), ([masks, masks.tensor], TypeError)):
        with pytest.raises(error):
            BitMasks.cat(wrong)
    with pytest.raises(ValueError, match=r"\(N, H, W\)"):
        BitMasks(torch.zeros(3, 4))
