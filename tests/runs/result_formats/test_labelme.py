import json

import numpy as np
import torch

from hydet.structures import Keypoints, RotatedBoxes, polygons_to_bitmask

KEYS = {"label", "points", "shape_type", "flags", "mask", "group_id", "description"}


def test_rectangles_and_the_file(make_result, tmp_path):
    path = tmp_path / "labels" / "a.json"
    result = make_result(name=str(tmp_path / "photos" / "a.jpg"))
    content = result.to_labelme(path)
    assert json.loads(path.read_text(encoding="utf-8")) == content
    assert content["imagePath"] == "../photos/a.jpg" and content["imageData"] is None
    assert (content["imageHeight"], content["imageWidth"]) == (40, 60)
    dog, cat = content["shapes"]
    assert dog.keys() == KEYS and (dog["label"], cat["label"]) == ("dog", "cat")
    assert (dog["shape_type"], dog["points"], dog["group_id"]) == ("rectangle", [[10, 5], [30, 25]], None)
    assert dog["description"] == "score 0.900"


def test_parts_of_a_mask_and_keypoints_are_groups(make_result):
    masks = torch.zeros(2, 40, 60, dtype=torch.bool)
    masks[0, 5:25, 10:30] = True
    masks[0, 30:36, 40:50] = True
    shapes = make_result(pred_masks=masks).to_labelme()["shapes"]
    assert [(s["shape_type"], s["group_id"]) for s in shapes] == [
        ("polygon", 0),
        ("polygon", 0),
        ("rectangle", None),
    ]
    polygons = [np.ravel(s["points"]) for s in shapes[:2]]
    np.testing.assert_array_equal(polygons_to_bitmask(polygons, 40, 60), masks[0].numpy())
    points = Keypoints(torch.ones(2, 2, 3))
    shapes = make_result(pred_keypoints=points).to_labelme()["shapes"]
    assert [s["label"] for s in shapes] == ["dog", "nose", "tail", "cat", "nose", "tail"]
    assert [s["group_id"] for s in shapes] == [0, 0, 0, 1, 1, 1]
    assert shapes[1]["shape_type"] == "point" and shapes[1]["points"] == [[1, 1]]


def test_rotated_boxes_are_polygons(make_result):
    boxes = RotatedBoxes(torch.tensor([[30.0, 20, 20, 10, 90], [20, 20, 8, 8, 0]]))
    shape = make_result(pred_boxes=boxes).to_labelme()["shapes"][0]
    assert shape["shape_type"] == "polygon"
    np.testing.assert_allclose(sorted(shape["points"]), [[25, 10], [25, 30], [35, 10], [35, 30]], atol=1e-4)
