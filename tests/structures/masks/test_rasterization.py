import numpy as np
import pytest
from pycocotools import mask as reference

from hydet.structures import polygons_to_bitmask

SQUARE = [2.0, 3.0, 12.0, 3.0, 12.0, 13.0, 2.0, 13.0]


@pytest.mark.parametrize("seed", range(5))
def test_rasterizer_matches_pycocotools(seed, star):
    polygons = [star(seed), star(seed + 100, center=(30.0, 5.0))]
    codes = reference.merge(reference.frPyObjects([p.tolist() for p in polygons], 30, 40))
    assert np.array_equal(polygons_to_bitmask(polygons, 30, 40), reference.decode(codes).astype(bool))


def test_integer_square_is_filled_exactly():
    mask = polygons_to_bitmask([np.array(SQUARE)], 16, 20)
    assert mask.shape == (16, 20) and mask.dtype == bool
    assert mask.sum() == 100 and mask[3:13, 2:12].all()
    assert not polygons_to_bitmask([], 4, 5).any()
    with pytest.raises(ValueError, match="4 numbers"):
        polygons_to_bitmask([np.array([0.0, 0, 3, 3])], 4, 5)
