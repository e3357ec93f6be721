"""Scaling of deep images to 8 bits."""

import numpy as np
import pytest

from hydet.data.images.value_range import check_value_range, to_8_bits


@pytest.mark.parametrize(
    ("values", "value_range", "expected"),
    [
        (np.array([0, 255], dtype=np.uint16), "auto", [0, 255]),
        (np.array([0, 256, 1023], dtype=np.uint16), "auto", [0, 64, 255]),
        (np.array([0, 4095], dtype=np.uint16), "full", [0, 16]),
        (np.array([-1000, 0, 1000], dtype=np.int32), "auto", [0, 128, 255]),
        (np.array([100, 200], dtype=np.uint16), "minmax", [0, 255]),
        (np.array([7, 7], dtype=np.uint16), "minmax", [0, 0]),
        (np.array([0.0, 0.5, 1.0]), "auto", [0, 128, 255]),
        (np.array([0.0, 1.5, 200.0]), "auto", [0, 2, 200]),
        (np.array([-1.0, np.nan, np.inf, -np.inf, 1.0]), "auto", [0, 0, 255, 0, 255]),
        (np.array([np.nan, np.inf]), "auto", [0, 255]),
        (np.array([-1e308, 1e308]), "auto", [0, 0]),
        (np.array([2.0, 3.0, 4.0, 5.0]), [3, 4], [0, 0, 255, 255]),
    ],
)
def test_values(values, value_range, expected):
    assert to_8_bits(values[:, None], value_range)[:, 0].tolist() == expected


@pytest.mark.parametrize("value_range", ["most", [1], [2, 1], [0, float("nan")], ["0", "1"], 5])
def test_a_wrong_setting_is_named(value_range):
    with pytest.raises(ValueError, match="value_range must be"):
        check_value_range(value_range)
