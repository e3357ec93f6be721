from functools import partial

import pytest

from hydet.modeling import Matcher, make_each


def test_each_call_gets_the_shared_arguments_and_its_entry():
    matchers = make_each(
        make=partial(Matcher, labels=[0, 1]), each=[{"thresholds": [0.5]}, {"thresholds": [0.6]}]
    )
    assert [type(matcher) for matcher in matchers] == [Matcher, Matcher]
    assert [matcher.labels for matcher in matchers] == [[0, 1], [0, 1]]
    assert matchers[0].thresholds != matchers[1].thresholds


def test_entries_override_shared_arguments():
    assert make_each(make=dict, each=[{}, {"a": 2}], a=1, b=3) == [{"a": 1, "b": 3}, {"a": 2, "b": 3}]


def test_no_entries_make_no_parts():
    assert make_each(make=dict, each=[]) == []


def test_make_that_is_not_callable_raises():
    with pytest.raises(TypeError, match="is _partial_ missing"):
        make_each(make=[], each=[{}])
