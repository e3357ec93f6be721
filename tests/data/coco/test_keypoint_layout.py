import pytest

from hydet.data import CocoDataset, DataError


def test_names_mirror_pairs_and_skeleton_come_from_the_category(coco_folder, annotation):
    names = ["nose", "left_eye", "right_eye"]
    categories = [
        {"id": 3, "name": "dog", "keypoints": names, "skeleton": [[1, 2], [1, 3]]},
        {"id": 9, "name": "box"},
    ]
    with_points = annotation(keypoints=[5, 6, 2, 7, 8, 1, 0, 0, 0], num_keypoints=2)
    dataset = CocoDataset(
        **coco_folder([with_points, annotation(id=2, category_id=9)], categories=categories)
    )
    assert dataset.metadata.keypoint_flip_pairs == (("left_eye", "right_eye"),)
    assert dataset.metadata.keypoint_skeleton == (("nose", "left_eye"), ("nose", "right_eye"))
    assert len(dataset.metadata.keypoint_sigmas) == 3
    assert dataset[0].keypoints.tolist() == [[[5, 6, 2], [7, 8, 1], [0, 0, 0]], [[0, 0, 0]] * 3]
    assert dataset.to_coco()["annotations"][0]["num_keypoints"] == 2
    assert (
        CocoDataset(**coco_folder([with_points], categories=categories), with_keypoints=False)[0].keypoints
        is None
    )
    shifted = CocoDataset(**coco_folder([with_points], categories=categories), keypoint_offset=0.5)
    assert shifted[0].keypoints.tolist() == [[[5.5, 6.5, 2], [7.5, 8.5, 1], [0, 0, 0]]]
    assert shifted.to_coco()["annotations"][0]["keypoints"] == [5, 6, 2, 7, 8, 1, 0, 0, 0]
    with pytest.raises(DataError, match="no category has keypoints"):
        CocoDataset(**coco_folder([annotation()]), with_keypoints=True)


def test_keypoint_arguments_override_the_file(coco_folder, annotation):
    categories = [{"id": 3, "name": "dog", "keypoints": ["a", "b"], "keypoint_sigmas": [0.2, 0.3]}]
    arguments = coco_folder([annotation()], categories=categories)
    metadata = CocoDataset(**arguments).metadata
    assert metadata.keypoint_sigmas == (0.2, 0.3) and metadata.keypoint_flip_pairs == ()
    metadata = CocoDataset(**arguments, keypoint_sigmas=[0.5, 0.6], keypoint_flip_pairs=[["a", "b"]]).metadata
    assert metadata.keypoint_sigmas == (0.5, 0.6) and metadata.keypoint_flip_pairs == (("a", "b"),)


def test_categories_with_different_keypoints_are_refused(coco_folder, annotation):
    categories = [
        {"id": 3, "name": "dog", "keypoints": ["a"]},
        {"id": 9, "name": "cat", "keypoints": ["b"]},
    ]
    arguments = coco_folder([annotation()], categories=categories)
    with pytest.raises(DataError, match="'dog' and 'cat' have different keypoints"):
        CocoDataset(**arguments)
    dataset = CocoDataset(**arguments, class_names=["dog"], ignore_other_categories=True)
    assert dataset.metadata.keypoint_names == ("a",)
