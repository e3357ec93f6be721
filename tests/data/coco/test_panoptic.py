import json

import numpy as np
import pytest
from PIL import Image

from hydet.data import DataError
from hydet.data.coco.panoptic import PanopticLabels, ids_to_rgb, rgb_to_ids

CATEGORIES = [
    {"id": 5, "name": "dog", "isthing": 1},
    {"id": 2, "name": "cat"},  # a thing by default
    {"id": 9, "name": "sky", "isthing": 0},
]
SIZE = (4, 6)


@pytest.fixture
def segment_ids():
    ids = np.zeros(SIZE, dtype=np.int32)
    ids[:2], ids[2:, :3] = 300, 70000
    return ids


@pytest.fixture
def path(tmp_path, segment_ids):
    segments = [
        {"id": 300, "category_id": 9, "area": 12},
        {"id": 70000, "category_id": 5, "iscrowd": 1},
        {"id": 8, "category_id": 2, "area": 0},
    ]
    content = {
        "categories": CATEGORIES,
        "annotations": [{"image_id": 7, "file_name": "a.png", "segments_info": segments}],
    }
    (tmp_path / "p").mkdir()
    Image.fromarray(ids_to_rgb(segment_ids)).save(tmp_path / "p" / "a.png")
    (tmp_path / "p.json").write_text(json.dumps(content), encoding="utf-8")
    return tmp_path / "p.json"


def test_colors_encode_ids():
    ids = np.array([[0, 255, 256, 65535, 65536, 2**24 - 1]], dtype=np.int32)
    np.testing.assert_array_equal(rgb_to_ids(ids_to_rgb(ids)), ids)
    assert rgb_to_ids(np.array([[[1, 2, 3]]], dtype=np.uint8)).tolist() == [[1 + 2 * 256 + 3 * 65536]]


def test_segments_and_semantic_labels(path, segment_ids):
    labels = PanopticLabels(path, None, ["cat", "dog"])
    assert labels.stuff_classes == ("things", "sky") and labels.stuff_ids == (0, 9)
    annotation = labels.read(7, "a.jpg", SIZE)
    np.testing.assert_array_equal(annotation.segment_ids, segment_ids)
    expected = np.select([segment_ids == 300, segment_ids == 70000], [1, 0], default=255)
    np.testing.assert_array_equal(annotation.sem_seg, expected)
    assert annotation.segments_info == [
        {"id": 300, "category_id": 1, "isthing": False, "iscrowd": False, "area": 12},
        {"id": 70000, "category_id": 1, "isthing": True, "iscrowd": True, "area": 6},
        {"id": 8, "category_id": 0, "isthing": True, "iscrowd": False, "area": 0},
    ]


def test_stuff_that_the_file_lacks_gets_an_unused_id(path):
    labels = PanopticLabels(path, None, ["cat", "dog"], ["things", "grass", "sky"])
    assert labels.stuff_ids == (0, 10, 9)
    assert set(np.unique(labels.read(7, "a.jpg", SIZE).sem_seg)) == {0, 2, 255}


def test_categories_outside_the_names_are_refused(path):
    with pytest.raises(DataError, match=r"p\.json: category 'dog' is a thing, but is not one of the 1 names"):
        PanopticLabels(path, None, ["cat"])
    with pytest.raises(DataError, match="category 'sky' is stuff"):
        PanopticLabels(path, None, ["cat", "dog"], ["things", "grass"])


def test_other_json_files_are_refused(tmp_path):
    (tmp_path / "p.json").write_text('{"categories": [], "annotations": [{"id": 3}]}', encoding="utf-8")
    with pytest.raises(DataError, match=r"p\.json: is not a COCO file: it has no 'categories'"):
        PanopticLabels(tmp_path / "p.json", None, [])


def test_images_without_segments_or_with_a_broken_map_are_named(path):
    labels = PanopticLabels(path, None, ["cat", "dog"])
    with pytest.raises(DataError, match=r"has no segments for image 8 \(b\.jpg\)"):
        labels.read(8, "b.jpg", SIZE)
    with pytest.raises(DataError, match=r"a\.jpg: the panoptic map has 6 x 4 pixels, the image 6 x 5"):
        labels.read(7, "a.jpg", (5, 6))
    Image.new("L", SIZE[::-1]).save(path.with_suffix("") / "a.png")
    with pytest.raises(DataError, match=r"a\.png: a panoptic map must have three channels"):
        labels.read(7, "a.jpg", SIZE)
