import json

import numpy as np
import pytest
from faster_coco_eval.core import mask as coco_mask

from hydet.data import CocoDataset, DataError, InputMapper, segment_to_mask


def encode(mask, compressed):
    (code,) = coco_mask.encode(np.asfortranarray(mask[:, :, None].astype(np.uint8)))
    if compressed:
        return {"size": list(mask.shape), "counts": code["counts"].decode()}
    flat = mask.reshape(-1, order="F")
    edges = [0, *(np.flatnonzero(np.diff(flat.astype(int))) + 1).tolist(), flat.size]
    runs = np.diff(edges).tolist()
    return {"size": list(mask.shape), "counts": [0, *runs] if flat[0] else runs}


@pytest.mark.parametrize("compressed", [True, False])
def test_run_length_codes_and_crowds(coco_folder, annotation, compressed):
    mask = np.random.default_rng(0).random((30, 40)) < 0.5
    crowd = annotation(segmentation=encode(mask, compressed), iscrowd=1, bbox=[0, 0, 40, 30])
    dataset = CocoDataset(**coco_folder([crowd, annotation(id=2)]), policy="raise")
    record = dataset[0]
    np.testing.assert_array_equal(record.bitmasks()[0].numpy(), mask)
    assert record.iscrowd.tolist() == [True, False]
    assert len(InputMapper(training=True)(record)["instances"]) == 1
    written = json.loads(json.dumps(dataset.to_coco()))["annotations"][0]["segmentation"]
    np.testing.assert_array_equal(segment_to_mask(written, 30, 40), mask)


def test_one_polygon_without_a_list_around_it(coco_folder, annotation):
    flat = annotation(segmentation=[4, 5, 14, 5, 14, 13, 4, 13])
    dataset = CocoDataset(**coco_folder([flat]), policy="raise")
    assert dataset[0].bitmasks().sum() == 80


@pytest.mark.parametrize("far", [1e9, -1e9, 1e300, 2**70, -(10**6)])
def test_polygons_far_outside_are_left_out_before_anything_is_allocated(coco_folder, annotation, far):
    """COCO's rasterizer needs 100 bytes per pixel of the outline: 100 GB for a coordinate of 1e9."""
    entries = [annotation(segmentation=[[4, 5, far, 5, 14, 13]]), annotation(id=2)]
    dataset = CocoDataset(**coco_folder(entries), policy="clamp")
    assert dataset.report().count("bad_polygon") == 1 and "far outside the image of 40 x 30" in str(
        dataset.report()
    )
    with pytest.raises(DataError, match=r"a\.png, annotation 1: polygon"):
        CocoDataset(**coco_folder(entries), policy="raise")


def test_outlines_of_millions_of_pixels_are_left_out(coco_folder, annotation):
    zigzag = [number for i in range(10_000) for number in (-300 * (i % 2), 300 * (i % 2))]
    dataset = CocoDataset(
        **coco_folder([annotation(segmentation=[zigzag]), annotation(id=2)]), policy="clamp"
    )
    assert "longer than 4000000 pixels" in str(dataset.report())


@pytest.mark.parametrize(
    "polygon", [[1, 1, 1, 1, 1, 1], [5, 5, 5, 20, 5, 10], [-9, 1, -5, 1, -5, 9], [50, 1, 60, 1, 60, 9]]
)
def test_empty_regions_are_reported(coco_folder, annotation, polygon):
    dataset = CocoDataset(**coco_folder([annotation(segmentation=[polygon])]), policy="clamp")
    is_empty = not segment_to_mask([np.array(polygon, dtype=np.float64)], 30, 40).any()
    assert dataset.report().count("empty_region") == int(is_empty)
