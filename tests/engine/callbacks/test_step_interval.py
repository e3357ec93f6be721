import pytest

from hydet.engine.callbacks.step_interval import check_interval, is_due


def test_multiples_and_the_last_step_are_due():
    assert [step for step in range(1, 8) if is_due(step, 3, 7)] == [3, 6, 7]
    assert [step for step in range(1, 8) if is_due(step, 0, 7)] == [7]


@pytest.mark.parametrize("every", [0, -1, 1.5, True, "2", None])
def test_invalid_intervals_are_rejected(every):
    with pytest.raises(ValueError, match="every must be a number of steps"):
        check_interval(every)


def test_valid_intervals_are_returned():
    assert check_interval(3) == 3
