import pytest

from hydet.data.coco.rotated_shapes import (
    box_around_points,
    corners_of,
    cvat_rotation,
    is_upright,
    quadrilateral_of,
    smallest_rotated_box,
)
from hydet.structures.box_ops import wrap_angles


@pytest.mark.parametrize("degrees", [-90, -60.5, -30, 0, 10, 45, 89])
def test_smallest_rotated_box_inverts_corners(degrees):
    box = (20.0, 15.0, 10.0, 4.0, degrees)
    assert smallest_rotated_box(corners_of(box)) == pytest.approx(box)


def test_angles_are_counterclockwise_on_screen():
    # The right end of the width is higher, and y points down.
    points = [0, 10, 10, 0, 12, 2, 2, 12]
    cx, cy, w, h, degrees = smallest_rotated_box(points)
    assert (cx, cy, degrees) == pytest.approx((6, 6, 45)) and w > h


def test_rectangle_around_other_quadrilaterals():
    assert smallest_rotated_box([0, 0, 10, 0, 8, 4, 2, 4]) == pytest.approx((5, 2, 10, 4, 0))
    assert smallest_rotated_box([1, 1, 1, 1, 1, 1, 1, 1]) is None
    assert smallest_rotated_box([0, 0, 5, 5, 10, 10, 2, 2]) is None


def test_quadrilaterals():
    polygon = [0, 0, 4, 0, 4, 3, 0, 3]
    assert (
        quadrilateral_of([polygon])
        == quadrilateral_of(polygon)
        == quadrilateral_of([[*polygon, 0, 0]])
        == polygon
    )
    for other in (
        None,
        [],
        [polygon, polygon],
        [polygon[:6]],
        [[*polygon, 9, 9]],
        {"counts": []},
        [["a"] * 8],
    ):
        assert quadrilateral_of(other) is None
    assert is_upright(polygon) and is_upright([0, 0, 0, 3, 4, 3, 4, 0])
    assert not is_upright([0, 0, 4, 1, 4, 3, 0, 3]) and not is_upright([5, 0, 10, 5, 5, 10, 0, 5])
    assert box_around_points([5, 0, 10, 5, 5, 11, 0, 5]) == (0, 0, 10, 11)


def test_rotation_of_cvat_is_clockwise():
    assert cvat_rotation({"rotation": 30.0}) == -30 and cvat_rotation({"rotation": "350"}) == 10
    for other in (None, [], {}, {"rotation": None}, {"rotation": float("nan")}, {"rotation": 0.0}):
        assert cvat_rotation(other) == 0
    assert wrap_angles(180) == -180 and wrap_angles(-200) == 160
