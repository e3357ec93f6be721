import numpy as np
import pytest
import torch

from hydet.data.mapping.regions import Regions, select_regions

from .conftest import H, W, square

ROWS = torch.tensor([0, 1])


def test_polygons_and_run_length_codes_become_bitmasks(make_record):
    regions = select_regions(make_record(), ROWS, "bitmask")
    assert [len(polygons) for polygons in regions.polygons] == [1, 0] and regions.bitmap_rows == [1]
    assert regions.bitmaps.shape == (1, H, W) and regions.bitmaps.dtype == torch.uint8
    assert torch.equal(regions.to_bitmasks(H, W).tensor, make_record().bitmasks()[:2])


def test_run_length_codes_become_polygons(make_record):
    regions = select_regions(make_record(), ROWS, "polygon")
    assert regions.bitmaps is None and regions.bitmap_rows == []
    bounds = regions.to_polygon_masks(H, W).get_bounding_boxes().tensor
    assert torch.equal(bounds, make_record().boxes[:2])


def test_bitmaps_of_the_record_are_preferred_for_bitmasks(make_record):
    masks = torch.rand(3, H, W) > 0.5
    regions = select_regions(make_record(masks=masks), ROWS, "bitmask")
    assert regions.polygons == [[], []] and torch.equal(regions.to_bitmasks(H, W).tensor, masks[:2])
    assert select_regions(make_record(masks=masks), ROWS, "polygon").bitmaps is None


def test_an_object_without_a_region_has_an_empty_mask(make_record):
    regions = select_regions(make_record(segments=[None, square(0, 0, 4, 4), None]), ROWS, "bitmask")
    assert regions.to_bitmasks(H, W).tensor.sum((1, 2)).tolist() == [0, 16]
    assert regions.to_polygon_masks(H, W).nonempty().tolist() == [False, True]


def test_moved_inverts_vertices():
    regions = Regions([square(0, 1, 2, 3) + square(4, 5, 6, 7), [], square(8, 8, 9, 9)])
    vertices = regions.vertices()
    assert vertices.shape == (12, 2) and vertices[4].tolist() == [4, 5]
    moved = regions.moved(vertices + 1, None)
    assert [len(polygons) for polygons in moved.polygons] == [2, 0, 1]
    np.testing.assert_array_equal(moved.polygons[2][0], square(9, 9, 10, 10)[0])


def test_no_regions():
    regions = Regions([])
    assert regions.vertices().shape == (0, 2) and regions.moved(regions.vertices(), None) == regions
    assert regions.to_bitmasks(H, W).tensor.shape == (0, H, W)
    assert len(regions.to_polygon_masks(H, W)) == 0


def test_polygons_are_clipped_to_the_image():
    regions = Regions([square(-5, -5, 3, 4), square(50, 0, 60, 5)])
    masks = regions.to_polygon_masks(H, W)
    assert masks.nonempty().tolist() == [True, False]
    assert masks.get_bounding_boxes().tensor[0].tolist() == [0, 0, 3, 4]


@pytest.mark.parametrize("mask_format", ["bitmask", "polygon"])
def test_a_record_without_regions_is_rejected(make_record, mask_format):
    with pytest.raises(ValueError, match=r"a\.png: masks are required"):
        select_regions(make_record(segments=None), ROWS, mask_format)
