import json

import numpy as np
import pytest
from faster_coco_eval.core import mask as coco_mask

from hydet.data import CocoDataset, InputMapper, segment_to_mask


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
