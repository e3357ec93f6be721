"""Labels of images that were resized after labeling."""

import numpy as np
import pytest

from hydet.data.coco.object_scaling import ObjectScaling
from hydet.data.datasets.record import segment_to_mask

DOUBLE = ObjectScaling(old=(20, 30), new=(40, 60))
STRETCHED = ObjectScaling(old=(20, 30), new=(20, 60))


def test_equal_sizes_change_nothing():
    same, boxes, polygon = ObjectScaling(old=(20, 30), new=(20, 30)), np.ones((2, 4)), [np.ones(6)]
    assert same.is_identity and same.boxes(boxes) is boxes and same.segment(polygon) is polygon
    keypoints = np.ones((1, 2, 3), dtype=np.float32)
    assert same.keypoints(keypoints, offset=0.5) is keypoints


def test_boxes_areas_and_polygons_follow_the_factors():
    boxes = np.array([[1.0, 2.0, 3.0, 4.0]])
    assert DOUBLE.boxes(boxes).tolist() == [[2, 4, 6, 8]]
    assert STRETCHED.boxes(boxes).tolist() == [[2, 2, 6, 4]]
    assert DOUBLE.areas(np.array([5.0])).tolist() == [20] and STRETCHED.areas(np.array([5.0])).tolist() == [
        10
    ]
    (polygon,) = STRETCHED.segment([np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])])
    assert polygon.tolist() == [2, 2, 6, 4, 10, 6]


def test_rotated_boxes_scale_as_their_container_does():
    boxes = np.array([[10, 10, 4, 2, 0], [10, 10, 4, 2, 90]], dtype=np.float32)
    assert STRETCHED.rotated_boxes(boxes)[:, :4] == pytest.approx(
        np.array([[20, 10, 8, 2], [20, 10, 4, 4]]), abs=1e-4
    )


def test_pixel_indices_keep_their_place_inside_the_pixel_and_unlabeled_keypoints_stay():
    keypoints = np.array([[[0, 0, 2], [0, 0, 0]]], dtype=np.float32)
    assert DOUBLE.keypoints(keypoints, offset=0.5).tolist() == [[[0.5, 0.5, 2], [0, 0, 0]]]
    assert DOUBLE.keypoints(keypoints, offset=0.0).tolist() == [[[0, 0, 2], [0, 0, 0]]]


def test_run_length_codes_are_resized_to_the_nearest_pixel():
    runs = {"size": [2, 3], "counts": [0, 2, 2, 2]}  # the first and the last column
    small = segment_to_mask(runs, 2, 3)
    resized = ObjectScaling(old=(2, 3), new=(4, 6)).segment(runs)
    assert np.array_equal(segment_to_mask(resized, 4, 6), np.repeat(np.repeat(small, 2, axis=0), 2, axis=1))
