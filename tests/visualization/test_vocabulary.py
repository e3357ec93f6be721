from types import SimpleNamespace

import pytest

from hydet.data import Metadata
from hydet.visualization.palette import palette
from hydet.visualization.vocabulary import Vocabulary


def test_fields_of_metadata():
    metadata = Metadata(
        thing_classes=("cat", "dog"),
        palette=((255, 0, 0), (0, 0, 255)),
        stuff_classes=("sky",),
        keypoint_names=("nose", "tail"),
        keypoint_skeleton=(("tail", "nose"),),
    )
    vocabulary = Vocabulary.from_metadata(metadata)
    assert vocabulary.thing_name(1) == "dog" and vocabulary.stuff_name(0) == "sky"
    assert vocabulary.thing_color(1) == (0, 0, 255) and vocabulary.skeleton == [(1, 0)]


@pytest.mark.parametrize("metadata", [None, SimpleNamespace(), Metadata()])
def test_numbers_and_default_colors_without_metadata(metadata):
    vocabulary = Vocabulary.from_metadata(metadata)
    assert vocabulary.thing_name(3) == "#3" and vocabulary.stuff_name(-1) == "#-1"
    assert vocabulary.thing_color(3) == palette(4)[3] and vocabulary.thing_color(-1) == palette(1)[0]
    assert list(vocabulary.skeleton) == []


def test_a_skeleton_of_indices_needs_no_names():
    assert Vocabulary.from_metadata(SimpleNamespace(keypoint_skeleton=[(0, 1)])).skeleton == [(0, 1)]


def test_wrong_colors_are_rejected():
    with pytest.raises(ValueError, match="three numbers"):
        Vocabulary.from_metadata(SimpleNamespace(palette=[(1, 2, 300)]))
