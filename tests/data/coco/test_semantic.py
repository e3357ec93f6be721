import numpy as np
import pytest
from PIL import Image

from hydet.data import CocoDataset, DataError
from hydet.data.coco.semantic import read_semantic_labels


@pytest.mark.parametrize(("dtype", "expected"), [(np.uint8, np.uint8), (np.uint16, np.int64)])
def test_label_maps_are_read_unchanged(tmp_path, dtype, expected):
    labels = np.arange(12, dtype=dtype).reshape(3, 4)
    (tmp_path / "sub").mkdir()
    Image.fromarray(labels).save(tmp_path / "sub" / "a.png")
    read = read_semantic_labels(tmp_path, "sub/a.jpg", (3, 4))
    assert read.dtype == expected
    np.testing.assert_array_equal(read, labels)


def test_label_map_of_another_size_is_refused(tmp_path):
    Image.new("L", (4, 3)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: the label map has 4 x 3 pixels, the image 5 x 3"):
        read_semantic_labels(tmp_path, "a.jpg", (3, 5))


def test_label_map_with_channels_is_refused(tmp_path):
    Image.new("RGB", (4, 3)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: a label map must have one channel"):
        read_semantic_labels(tmp_path, "a.jpg", (3, 4))


def test_missing_label_map_is_named(tmp_path):
    with pytest.raises(DataError, match=r"a\.png"):
        read_semantic_labels(tmp_path, "a.jpg", (3, 4))


def test_labels_without_a_name_are_refused(tmp_path):
    labels = np.array([[0, 1, 255], [2, 2, 200]], dtype=np.uint8)
    Image.fromarray(labels).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: has the label 200, but there are 3 labels"):
        read_semantic_labels(tmp_path, "a.jpg", (2, 3), num_labels=3)
    assert read_semantic_labels(tmp_path, "a.jpg", (2, 3), num_labels=201).max() == 255


def test_more_than_255_labels_are_refused(coco_folder):
    with pytest.raises(DataError, match=r"annotations\.json: there are 256 semantic labels"):
        CocoDataset(**coco_folder(), sem_seg="labels", stuff_class_names=[str(i) for i in range(256)])
