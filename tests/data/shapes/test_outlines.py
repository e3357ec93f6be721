import numpy as np
import pytest

from hydet.data.shapes.outlines import KEYPOINTS, SHAPES, find_keypoints, place_outline, polygon_area


@pytest.mark.parametrize("name", SHAPES)
def test_outlines_fill_the_unit_box(name):
    outline, max_aspect_ratio = SHAPES[name]
    np.testing.assert_allclose([outline.min(axis=0), outline.max(axis=0)], [[-1, -1], [1, 1]], atol=0.01)
    assert max_aspect_ratio >= 1


def test_place_outline_rotates_counter_clockwise_on_screen():
    rectangle = SHAPES["rectangle"].outline
    upright = place_outline(rectangle, np.array([10.0, 20, 6, 4, 0]))
    assert upright.tolist() == [[7, 18], [13, 18], [13, 22], [7, 22]]
    # The top left corner moves to the bottom left.
    rotated = place_outline(rectangle, np.array([10.0, 20, 6, 4, 90]))
    assert rotated.tolist() == [[8, 23], [8, 17], [12, 17], [12, 23]]
    assert polygon_area(rotated) == polygon_area(upright) == 24


def test_keypoints_of_a_rectangle():
    points = place_outline(SHAPES["rectangle"].outline, np.array([10.0, 20, 6, 4, 0]))
    keypoints = dict(zip(KEYPOINTS, find_keypoints(points, np.array([10.0, 20])).round(6).tolist()))
    assert keypoints == {
        "center": [10, 20],
        "left": [7.6, 20],
        "right": [12.4, 20],
        "top": [10, 18.4],
        "bottom": [10, 21.6],
    }


@pytest.mark.parametrize("name", SHAPES)
def test_mirroring_swaps_left_and_right(name):
    points = place_outline(SHAPES[name].outline, np.array([0.0, 0, 30, 28, 17]))
    keypoints = find_keypoints(points, np.zeros(2))
    mirrored = find_keypoints(points[::-1] * (-1, 1), np.zeros(2))
    np.testing.assert_allclose(mirrored[[0, 2, 1, 3, 4]] * (-1, 1), keypoints, atol=1e-6)
