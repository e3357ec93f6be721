import json

import pytest

from hydet.data import Metadata


def make(**changes):
    values = {
        "name": "people",
        "thing_classes": ["person", "cow"],
        "thing_ids": [1, 21],
        "keypoint_names": ["nose", "left_eye", "right_eye"],
        "keypoint_flip_pairs": [["left_eye", "right_eye"]],
        "keypoint_sigmas": [0.1, 0.2, 0.2],
        "keypoint_skeleton": [["nose", "left_eye"]],
        "stuff_classes": ["things", "grass"],
    }
    return Metadata(**(values | changes))


def test_round_trip_through_json():
    metadata = make()
    assert Metadata.from_dict(json.loads(json.dumps(metadata.to_dict()))) == metadata
    assert hash(metadata) == hash(make())


def test_unknown_keys_are_ignored():
    assert Metadata.from_dict({"name": "x", "sky_color": 3}) == Metadata(name="x")


def test_flip_indices_are_their_own_inverse():
    order = make().keypoint_flip_indices
    assert order == (0, 2, 1)
    assert [order[i] for i in order] == [0, 1, 2]


def test_ids_count_from_one_by_default():
    assert Metadata(thing_classes=("a", "b")).thing_ids == (1, 2)
    assert Metadata().num_classes == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"thing_ids": [1]},
        {"thing_ids": [1, 1]},
        {"thing_classes": ["a", "a"]},
        {"keypoint_sigmas": [0.1]},
        {"keypoint_flip_pairs": [["left_eye", "tail"]]},
        {"keypoint_flip_pairs": [["left_eye", "right_eye"], ["left_eye", "nose"]]},
        {"palette": [[0, 0, 0]]},
    ],
)
def test_inconsistent_fields_are_refused(changes):
    with pytest.raises(ValueError, match="Metadata"):
        make(**changes)
