"""Annotations that share an id."""

import pytest

from hydet.data.coco.repeated_ids import RepeatedIds


@pytest.fixture
def ids():
    ids = RepeatedIds()
    ids.add(1, {"id": 1, "bbox": [0, 0, 2, 2]})
    return ids


def test_an_equal_annotation_is_a_copy(ids):
    assert 1 in ids and 2 not in ids
    assert ids.is_copy(1, {"id": 1, "bbox": [0, 0, 2, 2]})


def test_other_annotations_with_the_id_are_no_copies_but_are_remembered(ids):
    other = {"id": 1, "bbox": [5, 5, 2, 2]}
    assert not ids.is_copy(1, other)
    assert ids.is_copy(1, dict(other))


def test_values_that_cannot_be_compared_are_no_copies(ids):
    deep = []
    for _ in range(100_000):
        deep = [deep]
    assert not ids.is_copy(1, {"id": 1, "bbox": deep})
    while deep:  # a nested list is freed recursively
        deep = deep[0]
