import pytest

from hydet.data import CocoDataset, DataError

CATEGORIES = [{"id": 3, "name": "dog", "keypoints": ["nose", "tail"]}]


def read(coco_folder, annotation, values, **arguments):
    files = coco_folder([annotation(keypoints=values)], categories=CATEGORIES)
    return CocoDataset(**files, keypoint_flip_pairs=[], **arguments)


def test_keypoints_without_visibility(coco_folder, annotation):
    dataset = read(coco_folder, annotation, [5, 6, 0, 0], policy="raise")
    assert dataset[0].keypoints.tolist() == [[[5, 6, 2], [0, 0, 0]]]
    assert dataset.report().counts == {("keypoints_without_visibility", "read as visible"): 1}


def test_keypoints_as_text(coco_folder, annotation):
    dataset = read(coco_folder, annotation, ["5", 6, "2", 7.5, 8, 1], policy="raise")
    assert dataset[0].keypoints.tolist() == [[[5, 6, 2], [7.5, 8, 1]]]


@pytest.mark.parametrize(
    "values",
    [[1, 2, 2, 1e300, 2, 2], [1, 2, 2, 2**70, 2, 2], [1, 2, 2, float("nan"), 2, 2], "5 6 2", {}, [None] * 6],
)
def test_broken_keypoints(coco_folder, annotation, values):
    dataset = read(coco_folder, annotation, values, policy="clamp")
    assert not dataset[0].keypoints.any() and dataset.report().count("bad_keypoints") == 1
    with pytest.raises(DataError, match=r"a\.png, annotation 1: keypoints"):
        read(coco_folder, annotation, values, policy="raise")


def test_other_visibilities_are_reported(coco_folder, annotation):
    dataset = read(coco_folder, annotation, [5, 6, 0.7, 7, 8, -1], policy="drop")
    assert dataset[0].keypoints[..., 2].tolist() == [[2, 0]] and dataset.report().count("bad_visibility") == 1


@pytest.mark.parametrize("key", ["iscrowd", "ignore", "difficult"])
def test_flags(coco_folder, annotation, key):
    for value, expected in ((1, True), ("1", True), (1.0, True), (True, True), ("0", False), (0.0, False)):
        dataset = CocoDataset(**coco_folder([annotation(**{key: value})]), policy="raise")
        entry = dataset.to_coco()["annotations"][0]
        assert bool(entry.get("iscrowd" if key == "iscrowd" else "ignore", 0)) is expected
    for value in (2, "true", [], 0.5):
        dataset = CocoDataset(**coco_folder([annotation(**{key: value})]), policy="drop")
        assert len(dataset[0]) == 1 and dataset.report().counts == {("bad_flag", "read as 0"): 1}
