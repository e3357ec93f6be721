import pytest
import torch

from hydet.data import CocoDataset, DataError, InputMapper

NAN = float("nan")


# (kind of problem, changes to a good annotation, its box under policy "clamp" or None if it is dropped)
BROKEN = [
    ("box_over_border", {"bbox": [30, 20, 50, 50]}, [30, 20, 40, 30]),
    ("box_outside", {"bbox": [50, 5, 5, 5]}, None),
    ("empty_box", {"bbox": [4, 5, 0, 8]}, [4, 5, 14, 13]),
    ("empty_box", {"bbox": [4, 5, -3, 8], "segmentation": ...}, None),
    ("bad_box", {"bbox": [4, NAN, 10, 8]}, [4, 5, 14, 13]),
    ("bad_box", {"bbox": ...}, [4, 5, 14, 13]),
    ("bad_box", {"bbox": ..., "segmentation": ...}, None),
    ("bad_box", {"bbox": "4,5,10,8"}, [4, 5, 14, 13]),
    ("bad_polygon", {"segmentation": [[4, 5, 14, 5]]}, [4, 5, 14, 13]),
    ("bad_polygon", {"segmentation": [[4, 5, 14, 5, 14, 13, 4]]}, [4, 5, 14, 13]),
    ("bad_polygon", {"segmentation": [[4, 5, 14, 5, 14, NAN]]}, [4, 5, 14, 13]),
    ("bad_rle", {"segmentation": {"size": [30, 40], "counts": [10, 20]}}, [4, 5, 14, 13]),
    ("bad_rle", {"segmentation": {"size": [40, 30], "counts": [1200]}}, [4, 5, 14, 13]),
    ("bad_rle", {"segmentation": {"size": [30, 40], "counts": "PPP~~"}}, [4, 5, 14, 13]),
    ("bad_rle", {"segmentation": {"size": [30, 40], "counts": "P"}}, [4, 5, 14, 13]),
    ("bad_rle", {"segmentation": {"size": [30, 40]}}, [4, 5, 14, 13]),
    ("bad_segmentation", {"segmentation": "a circle"}, [4, 5, 14, 13]),
    ("no_region", {"segmentation": []}, [4, 5, 14, 13]),
    ("unknown_category", {"category_id": 77}, None),
    ("unknown_image", {"image_id": 77}, None),
    ("duplicate_annotation_id", {"id": 2}, [4, 5, 14, 13]),
]


@pytest.mark.parametrize(("kind", "changes", "clamped_box"), BROKEN)
def test_broken_annotations(coco_folder, annotation, kind, changes, clamped_box):
    good = annotation(id=2, bbox=[1, 1, 5, 5], segmentation=[[1, 1, 6, 1, 6, 6, 1, 6]])
    bad = annotation(**({"id": 66} | changes))
    arguments = coco_folder([good, bad])
    number = str(bad["id"])

    with pytest.raises(DataError) as error:
        CocoDataset(**arguments, policy="raise")
    message = str(error.value)
    assert "\n" not in message and str(arguments["json"]) in message and number in message
    assert kind == "unknown_image" or "a.png" in message

    dropped = CocoDataset(**arguments, policy="drop")
    assert dropped[0].boxes.tolist() == [[1, 1, 6, 6]]
    assert dropped.report().count(kind) == dropped.report().count() == 1
    assert number in str(dropped.report()) and "dropped" in str(dropped.report())

    clamped = CocoDataset(**arguments, policy="clamp")
    assert clamped[0].boxes.tolist() == [[1, 1, 6, 6]] + ([] if clamped_box is None else [clamped_box])
    assert clamped.report().count(kind) >= 1
    ids = [a["id"] for a in clamped.to_coco()["annotations"]]
    assert len(set(ids)) == len(ids)
    InputMapper(training=True)(clamped[0])


def test_rounded_boxes_are_not_broken(coco_folder, annotation):
    dataset = CocoDataset(
        **coco_folder([annotation(bbox=[-0.5, 0, 41, 30.3], segmentation=...)]), policy="raise"
    )
    assert dataset[0].boxes.tolist() == [[0, 0, 40, 30]]
    assert dataset.to_coco()["annotations"][0]["bbox"] == [-0.5, 0, 41, 30.3], (
        "evaluation uses the numbers of the file"
    )


def test_bbox_of_five_numbers_is_a_rotated_box(coco_folder, annotation):
    rotated = annotation(bbox=[20, 15, 10, 4, 90], segmentation=...)
    record = CocoDataset(**coco_folder([rotated, annotation(id=2)]), with_masks=False)[0]
    assert record.rotated_boxes.tolist() == [[20, 15, 10, 4, 90], [9, 9, 10, 8, 0]]
    torch.testing.assert_close(record.boxes[0], torch.tensor([18.0, 10, 22, 20]))


def test_entries_that_are_not_mappings_are_reported(coco_folder, annotation):
    dataset = CocoDataset(**coco_folder([annotation(), 5, [1, 2]]), policy="drop")
    assert len(dataset[0]) == 1 and dataset.report().count("bad_annotation") == 2


@pytest.mark.parametrize("changes", [{"image_id": [5]}, {"image_id": None}, {"category_id": {}}])
def test_ids_of_other_types_are_reported(coco_folder, annotation, changes):
    dataset = CocoDataset(**coco_folder([annotation(), annotation(id=2, **changes)]), policy="drop")
    assert len(dataset[0]) == 1 and dataset.report().count() == 1


def test_broken_rotated_box_is_replaced_by_the_upright_box(coco_folder, annotation):
    arguments = coco_folder(
        [annotation(rotated_bbox=[9, 9, -1, 8, 0]), annotation(id=2, rotated_bbox=[9, 9, 4, 8, 30])]
    )
    assert CocoDataset(**arguments, policy="drop")[0].annotation_ids.tolist() == [2]
    dataset = CocoDataset(**arguments, policy="clamp")
    assert dataset[0].rotated_boxes.tolist() == [[9, 9, 10, 8, 0], [9, 9, 4, 8, 30]]
    assert dataset.report().count("bad_box") == 1


def test_broken_keypoints_are_left_out(coco_folder, annotation):
    categories = [{"id": 3, "name": "dog", "keypoints": ["nose", "tail"]}]
    arguments = coco_folder([annotation(keypoints=[1, 2, 2])], categories=categories)
    dataset = CocoDataset(**arguments, policy="clamp")
    assert not dataset[0].keypoints.any() and dataset.report().count("bad_keypoints") == 1


def test_missing_area_is_that_of_the_box(coco_folder, annotation):
    dataset = CocoDataset(**coco_folder([annotation(area=..., bbox=[4, 5, 3, 4])]), policy="raise")
    assert dataset.to_coco()["annotations"][0]["area"] == 12


@pytest.mark.parametrize("area", [-3, 0, NAN, 1e300, 10**400, "large", [80]])
def test_broken_area_is_reported_and_computed(coco_folder, annotation, area):
    arguments = coco_folder([annotation(area=area, bbox=[4, 5, 3, 4])])
    for policy in ("drop", "clamp"):
        dataset = CocoDataset(**arguments, policy=policy)
        assert dataset.to_coco()["annotations"][0]["area"] == 12
        assert dataset.report().counts == {("bad_area", "computed"): 1}
    with pytest.raises(DataError, match=r"a\.png, annotation 1: area must be a positive number"):
        CocoDataset(**arguments, policy="raise")


@pytest.mark.parametrize("image_id", ["5", 5.0, "5.0"])
@pytest.mark.parametrize("category_id", ["3", 3.0])
def test_ids_as_text_and_floats(coco_folder, annotation, image_id, category_id):
    entry = annotation(id="7", image_id=image_id, category_id=category_id)
    record = CocoDataset(**coco_folder([entry]), policy="raise")[0]
    assert record.annotation_ids.tolist() == [7] and record.classes.tolist() == [0]


@pytest.mark.parametrize("number", [2**63, 2**70, -(2**90), "a1b2", [1], 1.5])
def test_annotation_ids_that_are_not_integers_of_64_bits_are_renumbered(coco_folder, annotation, number):
    dataset = CocoDataset(**coco_folder([annotation(id=number), annotation(id=4)]), policy="raise")
    assert dataset[0].annotation_ids.tolist() == [5, 4]
    assert dataset.report().counts == {("renumbered_annotation_id", "renumbered"): 1}


def test_largest_annotation_id_leaves_room_for_others(coco_folder, annotation):
    entries = [annotation(id=2**63 - 1), annotation(id=...), annotation(id=1)]
    assert CocoDataset(**coco_folder(entries))[0].annotation_ids.tolist() == [2**63 - 1, 2, 1]


def test_empty_region_is_reported(coco_folder, annotation):
    outside = annotation(id=2, segmentation=[[50, 5, 60, 5, 60, 13]])
    dataset = CocoDataset(**coco_folder([annotation(), outside]), policy="clamp")
    assert dataset.report().counts == {("empty_region", "left out"): 1}
    with pytest.raises(DataError, match="annotation 2: its segmentation covers no pixel"):
        CocoDataset(**coco_folder([annotation(), outside]), policy="raise")
