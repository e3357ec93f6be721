import pytest

from hydet.data import CocoDataset, DataError


def test_class_names_define_the_order(coco_folder, annotation):
    dataset = CocoDataset(**coco_folder([annotation()]), class_names=["bird", "cat", "dog"])
    assert dataset[0].classes.tolist() == [2]
    assert dataset.metadata.thing_ids[1:] == (9, 3) and dataset.metadata.thing_ids[0] not in (3, 9)
    assert dataset.to_coco()["annotations"][0]["category_id"] == 3


def test_objects_of_other_categories_are_refused_or_ignored(coco_folder, annotation):
    arguments = coco_folder([annotation(), annotation(id=2, category_id=9)])
    for policy in ("drop", "clamp", "raise"):
        with pytest.raises(DataError, match=r"1 annotations have the category 'cat' \(id 9\)") as error:
            CocoDataset(**arguments, class_names=["dog"], policy=policy)
        message = str(error.value)
        assert str(arguments["json"]) in message and "\n" not in message
        assert "ignore_other_categories=true" in message and "set data.class_names=null" not in message
    dataset = CocoDataset(**arguments, class_names=["dog"], ignore_other_categories=True)
    assert dataset.metadata.thing_classes == ("dog",) and not dataset.report()


def test_other_categories_without_objects_are_left_out(coco_folder, annotation):
    dataset = CocoDataset(**coco_folder([annotation()]), class_names=["dog"], policy="raise")
    assert dataset.metadata.thing_classes == ("dog",)
    assert dataset.report().counts == {("unused_category", "left out"): 1}


def test_class_names_that_differ_in_case_are_named(coco_folder, annotation):
    with pytest.raises(DataError, match=r"'dog' .* is not one of the 1 class names .*, but 'Dog' is"):
        CocoDataset(**coco_folder([annotation()]), class_names=["Dog"])


@pytest.mark.parametrize("name", ["${price}", "car [/large]", "[bold]", "a: b", "çéß", "汽车"])
def test_class_names_with_special_meaning_elsewhere(coco_folder, annotation, name):
    arguments = coco_folder([annotation()], categories=[{"id": 3, "name": name}])
    dataset = CocoDataset(**arguments, policy="raise")
    assert dataset.metadata.thing_classes == (name,)
    assert len(CocoDataset(**arguments, class_names=[name], policy="raise")[0]) == 1
    assert dataset.to_coco()["categories"] == [{"id": 3, "name": name}]


def test_file_without_any_of_the_classes_is_refused(coco_folder, annotation):
    with pytest.raises(DataError, match=r"has none of the classes \['owl'\]; .* 'cat'"):
        CocoDataset(**coco_folder([annotation()]), class_names=["owl"], ignore_other_categories=True)
