import numpy as np
import pytest

from hydet.data.annotations.polygons import (
    clip_polygon,
    mask_to_polygons,
    rasterize_polygons,
    simplify_polygon,
)
from hydet.structures import polygons_to_bitmask


@pytest.mark.parametrize("density", [0.0, 0.3, 0.6, 0.9, 1.0])
def test_rasterizing_inverts_tracing(density):
    rng = np.random.default_rng(int(density * 10))
    for shape in [(1, 1), (1, 9), (12, 17), (20, 8)]:
        mask = rng.random(shape) < density
        np.testing.assert_array_equal(polygons_to_bitmask(mask_to_polygons(mask), *shape), mask)


def test_hole_is_part_of_its_outline():
    mask = np.zeros((9, 9), dtype=bool)
    mask[1:8, 1:8] = True
    mask[3:6, 3:6] = False
    mask[4, 4] = True
    polygons = mask_to_polygons(mask)
    assert len(polygons) == 2
    np.testing.assert_array_equal(polygons_to_bitmask(polygons, 9, 9), mask)


def test_clip_polygon():
    square = np.array([-5.0, -5, 5, -5, 5, 5, -5, 5])
    inside = clip_polygon(square, 10, 10).reshape(-1, 2)
    assert inside.min() == 0 and inside.max() == 5
    np.testing.assert_array_equal(clip_polygon(inside.reshape(-1), 10, 10), inside.reshape(-1))
    assert clip_polygon(square + 100, 10, 10).size == 0
    around = clip_polygon(np.array([-50.0, -50, 50, -50, 50, 50, -50, 50]), 10, 20).reshape(-1, 2)
    assert around.min(axis=0).tolist() == [0, 0] and around.max(axis=0).tolist() == [20, 10]


def test_rasterize_polygons_matches_single_objects():
    rng = np.random.default_rng(0)
    objects = [
        [rng.uniform(-20, 60, 2) + rng.uniform(-25, 25, (6, 2)) for _ in range(n)] for n in (1, 2, 0, 1, 3, 1)
    ]
    objects = [[p.reshape(-1) for p in polygons] for polygons in objects]
    masks = rasterize_polygons(objects, 40, 50)
    for mask, polygons in zip(masks, objects):
        np.testing.assert_array_equal(mask, polygons_to_bitmask(polygons, 40, 50))
    assert rasterize_polygons([], 3, 4).shape == (0, 3, 4)


def test_a_simplified_disc_has_few_vertices_and_nearly_the_same_pixels():
    y, x = np.mgrid[:50, :60]
    mask = (x - 30) ** 2 + (y - 25) ** 2 < 20**2
    (polygon,) = mask_to_polygons(mask)
    simple = simplify_polygon(polygon.reshape(-1, 2), 1.0)
    assert len(simple) < len(polygon) / 2 / 2
    drawn = polygons_to_bitmask([simple.reshape(-1)], 50, 60)
    assert (drawn & mask).sum() / (drawn | mask).sum() > 0.95


def test_simplifying_keeps_corners_and_never_returns_less_than_a_triangle():
    square = np.array([[0, 0], [5, 0], [9, 0], [9, 9], [0, 9], [0, 4]], dtype=float)
    assert simplify_polygon(square, 0.75).tolist() == [[0, 0], [9, 0], [9, 9], [0, 9]]
    tiny = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], dtype=float)
    assert simplify_polygon(tiny, 5.0).tolist() == tiny.tolist()
