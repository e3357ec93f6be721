"""Crowd flags that CVAT's mask tool writes for single objects."""

import pytest

from hydet.data import CocoDataset, DataError

CODE = {"size": [30, 40], "counts": [100, 7, 23, 5, 1065]}


def export(coco_folder, annotation, num_crowds, num_objects):
    crowds = [
        annotation(id=i + 1, iscrowd=1, segmentation=CODE, bbox=[3, 3, 8, 8]) for i in range(num_crowds)
    ]
    objects = [annotation(id=num_crowds + i + 1) for i in range(num_objects)]
    return coco_folder([*crowds, *objects])


@pytest.mark.parametrize(("num_crowds", "num_objects"), [(2, 0), (24, 0), (6, 3)])
def test_flags_of_most_objects_are_not_crowds(coco_folder, annotation, num_crowds, num_objects):
    arguments = export(coco_folder, annotation, num_crowds, num_objects)
    dataset = CocoDataset(**arguments, policy="drop", keep_empty=False)
    assert len(dataset[0]) == num_crowds + num_objects and not dataset[0].iscrowd.any()
    assert not any(a["iscrowd"] for a in dataset.to_coco()["annotations"])
    assert dataset.report().counts == {("crowds", "read as single objects"): 1}
    total = num_crowds + num_objects
    assert f"{num_crowds} of {total} annotations have iscrowd=1, as CVAT's mask tool" in str(dataset.report())
    with pytest.raises(DataError, match=r"annotations\.json: .* crowd=objects"):
        CocoDataset(**arguments, policy="raise")


def test_many_crowds_are_reported_and_a_setting_reads_them_as_objects(coco_folder, annotation):
    arguments = export(coco_folder, annotation, 6, 18)
    dataset = CocoDataset(**arguments, policy="raise")
    assert dataset[0].iscrowd.sum() == 6
    assert dataset.report().counts == {("crowds", "ignored in training"): 1}
    assert "6 of 24" in str(dataset.report()) and "crowd=objects" in str(dataset.report())
    dataset = CocoDataset(**arguments, policy="raise", crowd="objects")
    assert not dataset[0].iscrowd.any() and not dataset.report()


def test_few_crowds_are_those_of_coco(coco_folder, annotation):
    dataset = CocoDataset(**export(coco_folder, annotation, 1, 20), policy="raise")
    assert dataset[0].iscrowd.sum() == 1 and not dataset.report()


def test_crowds_that_are_ignored_leave_no_image(coco_folder, annotation):
    arguments = export(coco_folder, annotation, 3, 0)
    assert CocoDataset(**arguments, policy="raise", crowd="ignore")[0].iscrowd.all()
    with pytest.raises(
        DataError, match=r"no image is left to use: all 3 annotations are crowds .* crowd=objects"
    ):
        CocoDataset(**arguments, crowd="ignore", keep_empty=False)
    with pytest.raises(ValueError, match="crowd must be one of"):
        CocoDataset(**arguments, crowd="people")
