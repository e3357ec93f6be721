import math

import pytest

from hydet.engine.callbacks.metric_comparison import check_mode, is_better, read_metric


@pytest.mark.parametrize(
    ("name", "mode", "larger_is_better"),
    [
        ("box/AP", "auto", True),
        ("val_loss/total", "auto", False),
        ("box/AP", "min", False),
        ("val_loss/total", "max", True),
    ],
)
def test_direction_of_comparison(name, mode, larger_is_better):
    assert is_better(name, 2.0, 1.0, mode=mode) == larger_is_better
    assert is_better(name, 1.0, 2.0, mode=mode) != larger_is_better


def test_equal_values_and_small_changes_are_no_improvement():
    assert not is_better("box/AP", 1.0, 1.0)
    assert not is_better("box/AP", 1.05, 1.0, min_delta=0.1)
    assert is_better("box/AP", 1.15, 1.0, min_delta=0.1)


def test_nan_is_never_better_and_any_number_beats_it():
    assert not is_better("box/AP", math.nan, None)
    assert not is_better("box/AP", math.nan, 0.0)
    assert is_better("box/AP", 0.0, math.nan) and is_better("box/AP", 0.0, None)


def test_unknown_metrics_name_the_nearest():
    with pytest.raises(ValueError, match="nearest: 'box/AP'"):
        read_metric({"box/AP": 0.5}, "box/APP")
    with pytest.raises(ValueError, match="available: box/AP"):
        read_metric({"box/AP": 0.5}, "xyz")
    with pytest.raises(ValueError, match="available: none"):
        read_metric({}, "xyz")


def test_unknown_modes_are_rejected():
    with pytest.raises(ValueError, match="'auto', 'max', 'min'"):
        check_mode("most")
