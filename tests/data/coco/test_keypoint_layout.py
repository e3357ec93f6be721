import pytest
import torch

from hydet.data import CocoDataset, DataError, InputMapper, Metadata, RandomHorizontalFlip


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
    with pytest.raises(DataError, match="no category and no object has keypoints"):
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


def with_points(annotation, names, points=((8, 8), (12, 8), (10, 12)), visibility=True, **keys):
    """Return an annotation with visible points, and its categories."""
    values = [number for point in points for number in (*point, *([2] if visibility else []))]
    category = {"id": 3, "name": "dog"} | ({} if names is None else {"keypoints": names}) | keys
    return annotation(keypoints=values, num_keypoints=len(points)), [category]


def flipped(dataset):
    mapper = InputMapper(
        transforms=RandomHorizontalFlip(p=1.0), training=True, mask_format="bitmask", keypoints=True
    )
    return mapper(dataset[0])


def test_keypoints_without_pairs_are_not_mirrored(coco_folder, annotation):
    entry, categories = with_points(annotation, ["a", "b", "c"])
    arguments = coco_folder([entry], categories=categories)
    dataset = CocoDataset(**arguments, policy="raise")
    assert dataset.report().counts == {("keypoints_without_pairs", "not mirrored"): 1}
    assert "the names of the keypoints (a, b, c) show no left and right ones" in str(dataset.report())
    assert Metadata.from_dict(dataset.metadata.to_dict()) == dataset.metadata
    mapped, record = flipped(dataset), dataset[0]
    instances = mapped["instances"]
    assert torch.equal(mapped["image"], record.image)
    assert instances.gt_keypoints.tensor.tolist() == record.keypoints.tolist()
    assert instances.gt_boxes.tensor.tolist() == record.boxes.tolist()
    assert torch.equal(instances.gt_masks.tensor, record.bitmasks())
    mapper = InputMapper(transforms=RandomHorizontalFlip(p=1.0), training=True)
    assert torch.equal(mapper(record)["image"], record.image.flip(2)), "models of boxes see mirrored images"


def test_declared_and_recognized_pairs_are_mirrored(coco_folder, annotation):
    entry, categories = with_points(annotation, ["L_Eye", "R_Eye", "Nose"])
    arguments = coco_folder([entry], categories=categories)
    dataset = CocoDataset(**arguments)
    assert dataset.metadata.keypoint_flip_pairs == (("L_Eye", "R_Eye"),) and not dataset.report()
    assert flipped(dataset)["instances"].gt_keypoints.tensor[0, :, 0].tolist() == [28, 32, 30]
    dataset = CocoDataset(**arguments, keypoint_flip_pairs=[])
    assert not dataset.report()
    assert flipped(dataset)["instances"].gt_keypoints.tensor[0, :, 0].tolist() == [32, 28, 30]
    entry, categories = with_points(annotation, ["nose"], points=[(8, 8)])
    dataset = CocoDataset(**coco_folder([entry], categories=categories))
    assert dataset.metadata.mirrors_keypoints and not dataset.report()


@pytest.mark.parametrize("visibility", [True, False])
def test_nameless_keypoints_get_numbers(coco_folder, annotation, visibility):
    entry, categories = with_points(annotation, None, visibility=visibility)
    empty = annotation(id=2, keypoints=[])
    dataset = CocoDataset(
        **coco_folder([entry, empty], categories=categories), policy="drop", min_keypoints=1
    )
    assert dataset.metadata.keypoint_names == ("1", "2", "3") and len(dataset.metadata.keypoint_sigmas) == 3
    assert dataset[0].keypoints[0].tolist() == [[8, 8, 2], [12, 8, 2], [10, 12, 2]]
    assert dataset.report().counts[("nameless_keypoints", "numbered from 1 to 3")] == 1
    assert dataset.report().count("keypoints_without_pairs") == 1
    assert (
        CocoDataset(**coco_folder([entry], categories=categories), with_keypoints=False)[0].keypoints is None
    )


def test_skeletons_that_count_from_0(coco_folder, annotation):
    entry, categories = with_points(annotation, ["left_eye", "right_eye", "nose"], skeleton=[[0, 1], [1, 2]])
    dataset = CocoDataset(**coco_folder([entry], categories=categories), policy="raise")
    assert dataset.metadata.keypoint_skeleton == (("left_eye", "right_eye"), ("right_eye", "nose"))
    assert dataset.report().counts == {("skeleton_from_0", "counted from 0"): 1}
    categories[0]["skeleton"] = [[1, 2], [2, 3], [0, 3], [4, 1]]  # neither way of counting fits
    dataset = CocoDataset(**coco_folder([entry], categories=categories))
    assert dataset.metadata.keypoint_skeleton == (("left_eye", "right_eye"), ("right_eye", "nose"))
