import pytest

from hydet.data import CocoDataset, DataError


@pytest.mark.parametrize(
    "category",
    [5, None, [], {"id": 3}, {"name": "a"}, {"id": 3, "name": ["a"]}, {"id": 3, "name": {}}, {"id": 3, "name": None},
     {"id": 3, "name": ""}, {"id": 3, "name": " "}, {"id": None, "name": "a"}, {"id": float("nan"), "name": "a"}],
)  # fmt: skip
def test_broken_categories_are_refused(coco_folder, annotation, category):
    arguments = coco_folder([annotation()], categories=[category])
    with pytest.raises(DataError, match="a category needs an integer 'id' and a 'name'") as error:
        CocoDataset(**arguments)
    assert str(arguments["json"]) in str(error.value) and "\n" not in str(error.value)


def test_one_id_with_two_names_is_refused(coco_folder, annotation):
    with pytest.raises(DataError, match="category id 3 appears twice, as 'a' and 'b'"):
        CocoDataset(
            **coco_folder([annotation()], categories=[{"id": 3, "name": "a"}, {"id": "3", "name": "b"}])
        )


def test_names_are_numbers_or_one_line(coco_folder, annotation):
    categories = [{"id": 3, "name": "traffic\n light\t"}, {"id": 4, "name": 7}]
    dataset = CocoDataset(**coco_folder([annotation()], categories=categories), policy="raise")
    assert dataset.metadata.thing_classes == ("traffic light", "7")
    assert dataset.report().counts == {("category_name", "replaced"): 1}
    names = CocoDataset(
        **coco_folder([annotation()], categories=categories), class_names=["traffic\n light\t"]
    )
    assert names.metadata.thing_classes == ("traffic light",)


def test_name_that_means_missing_in_configs(coco_folder, annotation):
    arguments = coco_folder([annotation()], categories=[{"id": 3, "name": "???"}])
    for class_names in (None, ["???"], ["unknown (???)"]):
        dataset = CocoDataset(**arguments, class_names=class_names, policy="raise")
        assert dataset.metadata.thing_classes == ("unknown (???)",) and len(dataset[0]) == 1
    assert "'???' is 'unknown (???)' here" in str(dataset.report())


@pytest.mark.parametrize(
    "changes",
    [{"keypoints": 5}, {"keypoints": {"a": 1}}, {"keypoints": [["a"], "b"]}, {"keypoints": ["a", "a"]},
     {"keypoints": ["a", None]}, {"keypoint_sigmas": 0.1}, {"keypoint_sigmas": [0.1]}, {"keypoint_sigmas": ["x", 0.1]},
     {"keypoint_sigmas": [0.1, -1]}, {"keypoint_sigmas": [0.1, float("nan")]}, {"skeleton": 5}, {"skeleton": [5]},
     {"skeleton": [[1]]}, {"skeleton": [["a", "b"]]}, {"skeleton": {"a": 1}}, {"frequency": 5}],
)  # fmt: skip
def test_broken_fields_are_reported(coco_folder, annotation, changes):
    category = {"id": 3, "name": "dog", "keypoints": ["nose", "tail"], "skeleton": [[1, 2]]} | changes
    arguments = coco_folder([annotation()], categories=[category]) | {"keypoint_flip_pairs": []}
    dataset = CocoDataset(**arguments, policy="drop")
    assert dataset.report().counts == {("bad_category_field", "left out"): 1}
    with pytest.raises(DataError, match=r"category 'dog': (keypoint|skeleton|frequency)"):
        CocoDataset(**arguments, policy="raise")


def test_numbers_as_text_in_the_skeleton(coco_folder, annotation):
    category = {"id": 3, "name": "dog", "keypoints": ["nose", "tail"], "skeleton": [["1", 2.0]]}
    metadata = CocoDataset(**coco_folder([annotation()], categories=[category]), policy="raise").metadata
    assert metadata.keypoint_skeleton == (("nose", "tail"),)


def test_group_with_objects_is_a_class(coco_folder, annotation):
    categories = [{"id": 3, "name": "animal"}, {"id": 9, "name": "dog", "supercategory": "animal"}]
    dataset = CocoDataset(**coco_folder([annotation()], categories=categories), policy="raise")
    assert dataset.metadata.thing_classes == ("animal", "dog")


def test_supercategory_of_its_own_name_is_a_class(coco_folder, annotation):
    """COCO's person has the supercategory person."""
    categories = [{"id": 1, "name": "person", "supercategory": "person"}, {"id": 3, "name": "dog"}]
    dataset = CocoDataset(**coco_folder([annotation()], categories=categories), policy="raise")
    assert dataset.metadata.thing_classes == ("person", "dog")
