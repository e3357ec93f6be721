import pytest

from hydet.data import CocoDataset, DataError


def test_class_names_define_the_order(coco_folder, annotation):
    dataset = CocoDataset(**coco_folder([annotation()]), class_names=["bird", "cat", "dog"])
    assert dataset[0].classes.tolist() == [2]
    assert dataset.metadata.thing_ids[1:] == (9, 3) and dataset.metadata.thing_ids[0] not in (3, 9)
    assert dataset.to_coco()["annotations"][0]["category_id"] == 3


def test_other_categories_are_refused_or_ignored(coco_folder, annotation):
    arguments = coco_folder([annotation()])
    for policy in ("drop", "clamp", "raise"):
        with pytest.raises(DataError, match=r"'cat'.*data\.class_names=null") as error:
            CocoDataset(**arguments, class_names=["dog"], policy=policy)
        assert str(arguments["json"]) in str(error.value) and "\n" not in str(error.value)
    dataset = CocoDataset(**arguments, class_names=["dog"], ignore_other_categories=True)
    assert dataset.metadata.thing_classes == ("dog",) and not dataset.report()


def test_file_without_any_of_the_classes_is_refused(coco_folder, annotation):
    with pytest.raises(DataError, match=r"has none of the classes \['owl'\]"):
        CocoDataset(**coco_folder([annotation()]), class_names=["owl"], ignore_other_categories=True)
