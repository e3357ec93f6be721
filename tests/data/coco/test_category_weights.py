import json

import pytest
import torch

from hydet.data import DataError, frequency_weights, get_fed_loss_cls_weights


def write(path, categories, annotations=()):
    categories = [{"name": f"c{c['id']}"} | c for c in categories]
    path.write_text(
        json.dumps({"categories": categories, "annotations": list(annotations)}), encoding="utf-8"
    )
    return path


def test_image_counts_of_lvis_in_ascending_order_of_ids(tmp_path):
    path = write(tmp_path / "a.json", [{"id": 9, "image_count": 25}, {"id": 2, "image_count": 4}])
    assert frequency_weights(json=path, num_classes=2).tolist() == [2, 5]
    assert frequency_weights(json=path, num_classes=2, power=1).tolist() == [4, 25]
    assert frequency_weights(json=path, num_classes=2, power=0).tolist() == [1, 1]


def test_images_of_coco_are_counted_once_per_category(tmp_path):
    pairs = [(2, 1), (2, 1), (2, 5), (9, 5)]  # (category_id, image_id)
    annotations = [{"category_id": c, "image_id": i} for c, i in pairs]
    path = write(tmp_path / "a.json", [{"id": 2}, {"id": 9}, {"id": 11}], annotations)
    assert frequency_weights(json=path, num_classes=3, power=1).tolist() == [2, 1, 0]


def test_missing_file_gives_equal_weights_with_a_warning(tmp_path):
    with pytest.warns(UserWarning, match="equal weights"):
        weights = frequency_weights(json=tmp_path / "a.json", num_classes=3)
    assert torch.equal(weights, torch.ones(3))


def test_another_number_of_categories_is_refused(tmp_path):
    path = write(tmp_path / "a.json", [{"id": 2, "image_count": 4}])
    with pytest.raises(DataError, match="has 1 categories, the model 3"):
        frequency_weights(json=path, num_classes=3)


@pytest.mark.parametrize(
    "content",
    [[], 5, {}, {"categories": [{"name": "a"}, {"id": 2, "name": "b"}]}, {"categories": {"a": 1}},
     {"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}], "annotations": {"a": 1}}],
)  # fmt: skip
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "a.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.json: "):
        frequency_weights(json=tmp_path / "a.json", num_classes=2)


def test_broken_annotations_and_counts_do_not_count(tmp_path):
    annotations = [5, {}, {"category_id": [1], "image_id": 3}, {"category_id": 2, "image_id": {}}]
    annotations += [{"category_id": "2", "image_id": 4}, {"category_id": 2, "image_id": "4"}]
    path = write(tmp_path / "a.json", [{"id": 2, "image_count": "many"}, {"id": 9}], annotations)
    assert frequency_weights(json=path, num_classes=2, power=1).tolist() == [1, 0]


def test_the_documented_call_takes_paths_and_a_power(tmp_path):
    path = write(tmp_path / "a.json", [{"id": 9, "image_count": 25}, {"id": 2, "image_count": 4}])
    other = write(tmp_path / "b.json", [{"id": 2, "image_count": 7}, {"id": 9, "image_count": 8}])
    assert get_fed_loss_cls_weights(str(path), 0.5).tolist() == [2, 5]
    assert get_fed_loss_cls_weights(path).tolist() == [4, 25]
    assert get_fed_loss_cls_weights(dataset_names=[path, other], freq_weight_power=1.0).tolist() == [4, 25]
    third = write(tmp_path / "c.json", [{"id": 3, "image_count": 1}])
    with pytest.raises(DataError, match=r"c\.json: its categories differ"):
        get_fed_loss_cls_weights([path, third], 0.5)
    with pytest.raises(DataError, match="lvis_v1_train: no such file"):
        get_fed_loss_cls_weights("lvis_v1_train", 0.5)
    with pytest.raises(ValueError, match="at least one"):
        get_fed_loss_cls_weights([], 0.5)
