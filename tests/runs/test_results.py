"""Results are computed as they are needed."""

import pytest

from hydet.runs.results import Results


@pytest.fixture
def counted():
    """Return results that are numbers, and the list of those that were computed."""
    computed = []

    def numbers():
        for i in range(4):
            computed.append(i)
            yield i

    return Results(numbers(), []), computed


def test_an_iteration_is_lazy_and_happens_once(counted):
    results, computed = counted
    iterator = iter(results)
    assert next(iterator) == 0 and computed == [0]
    assert list(iterator) == [1, 2, 3]
    with pytest.raises(RuntimeError, match="list"):
        list(results)
    with pytest.raises(RuntimeError, match="list"):
        results[0]


def test_an_index_keeps_the_results_before_it(counted):
    results, computed = counted
    assert results[1] == 1 and computed == [0, 1]
    assert results[0] == 0 and computed == [0, 1]
    assert repr(results) == "Results(2 kept, 0 images failed)"
    assert list(results) == [0, 1, 2, 3]


def test_indices_from_the_end_and_outside(counted):
    results, _ = counted
    assert results[-1] == 3
    for index in (4, -5):
        with pytest.raises(IndexError, match=rf"there are 4 results, so there is no results\[{index}\]"):
            results[index]
    assert list(results) == [0, 1, 2, 3]
