import numpy as np
import pytest

from hydet.evaluation.ground_truth_objects import box_areas, box_overlaps, iou_thresholds, objects_by_image


def make_json(*annotations):
    rows = [{"image_id": 1, "category_id": 5, **annotation} for annotation in annotations]
    return {"images": [{"id": 1}, {"id": 2}], "annotations": rows}


def test_objects_of_known_images_and_categories():
    ground_truth = make_json(
        {"bbox": [1, 2, 3, 4]},
        {"bbox": [0, 0, 2, 2], "area": 3.0, "iscrowd": 1, "category_id": 9},
        {"bbox": [0, 0, 1, 1], "category_id": 6},
        {"bbox": [0, 0, 1, 1], "image_id": 3},
    )
    objects = objects_by_image(ground_truth, thing_ids=(9, 5))
    assert objects.keys() == {1, 2} and objects[2].boxes.shape == (0, 4)
    assert objects[1].classes.tolist() == [1, 0]
    assert objects[1].areas.tolist() == [12.0, 3.0] and objects[1].crowd.tolist() == [False, True]
    assert objects[1].regions == [None, None]


def test_rotated_objects_fall_back_to_their_upright_boxes():
    ground_truth = make_json({"bbox": [0, 0, 4, 2]}, {"bbox": [0, 0, 1, 1], "rotated_bbox": [2, 2, 4, 2, 30]})
    (boxes, areas) = (lambda o: (o.boxes, o.areas))(objects_by_image(ground_truth, (5,), rotated=True)[1])
    assert boxes.tolist() == [[2, 1, 4, 2, 0], [2, 2, 4, 2, 30]] and areas.tolist() == [8, 8]
    with pytest.raises(ValueError, match="no rotated boxes"):
        objects_by_image(make_json({"bbox": [0, 0, 4, 2]}), (5,), rotated=True)


@pytest.mark.parametrize("rotated", [False, True])
def test_overlap_with_a_crowd_is_the_covered_fraction_of_the_box(rotated):
    crowd = {"bbox": [0, 0, 10, 10], "rotated_bbox": [5, 5, 10, 10, 0], "iscrowd": 1}
    single = {"bbox": [0, 0, 10, 10], "rotated_bbox": [5, 5, 10, 10, 0]}
    objects = objects_by_image(make_json(crowd, single), (5,), rotated=rotated)[1]
    boxes = np.array([[5.0, 2.5, 10, 5, 0]] if rotated else [[0.0, 0, 10, 5]], dtype=np.float32)
    np.testing.assert_allclose(box_overlaps(boxes, objects), [[1.0, 0.5]], atol=1e-6)
    assert box_areas(boxes).tolist() == [50.0]


def test_overlaps_without_boxes_or_objects():
    objects = objects_by_image(make_json({"bbox": [0, 0, 1, 1]}), (5,))
    assert box_overlaps(np.zeros((0, 4)), objects[1]).shape == (0, 1)
    assert box_overlaps(np.zeros((3, 4)), objects[2]).shape == (3, 0)


def test_thresholds_have_the_precision_of_the_overlaps():
    assert iou_thresholds(rotated=True).dtype == np.float32
    assert np.float32(0.7) >= iou_thresholds(rotated=True)[4]
