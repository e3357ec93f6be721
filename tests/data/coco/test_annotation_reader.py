import json

import pytest
import torch

from hydet.data import CocoDataset, DataError, InputMapper

NAN = float("nan")


GOOD_BOX = [4, 5, 14, 13]
# (kind of problem, changes to a good annotation, its box under policy "clamp", and under "drop"; None if it is dropped)
BROKEN = [
    ("box_over_border", {"bbox": [30, 20, 50, 50]}, [30, 20, 40, 30], [30, 20, 40, 30]),
    ("box_outside", {"bbox": [50, 5, 5, 5]}, None, None),
    ("empty_box", {"bbox": [4, 5, 0, 8]}, GOOD_BOX, None),
    ("empty_box", {"bbox": [4, 5, -3, 8], "segmentation": ...}, None, None),
    ("bad_box", {"bbox": [4, NAN, 10, 8]}, GOOD_BOX, None),
    ("bad_box", {"bbox": ...}, GOOD_BOX, GOOD_BOX),
    ("bad_box", {"bbox": []}, GOOD_BOX, GOOD_BOX),
    ("bad_box", {"bbox": ..., "segmentation": ...}, None, None),
    ("bad_box", {"bbox": "4,5,10,8"}, GOOD_BOX, None),
    ("bad_polygon", {"segmentation": [[4, 5, 14, 5]]}, GOOD_BOX, GOOD_BOX),
    ("bad_polygon", {"segmentation": [[4, 5, 14, 5, 14, 13, 4]]}, GOOD_BOX, GOOD_BOX),
    ("bad_polygon", {"segmentation": [[4, 5, 14, 5, 14, NAN]]}, GOOD_BOX, GOOD_BOX),
    ("bad_rle", {"segmentation": {"size": [30, 40], "counts": [10, 20]}}, GOOD_BOX, GOOD_BOX),
    ("bad_rle", {"segmentation": {"size": [40, 30], "counts": [1200]}}, GOOD_BOX, GOOD_BOX),
    ("bad_rle", {"segmentation": {"size": [30, 40], "counts": "PPP~~"}}, GOOD_BOX, GOOD_BOX),
    ("bad_rle", {"segmentation": {"size": [30, 40], "counts": "P"}}, GOOD_BOX, GOOD_BOX),
    ("bad_rle", {"segmentation": {"size": [30, 40]}}, GOOD_BOX, GOOD_BOX),
    ("bad_segmentation", {"segmentation": "a circle"}, GOOD_BOX, GOOD_BOX),
    ("unknown_category", {"category_id": 77}, None, None),
    ("unknown_image", {"image_id": 77}, None, None),
    ("duplicate_annotation_id", {"id": 2}, GOOD_BOX, GOOD_BOX),
]


@pytest.mark.parametrize(("kind", "changes", "clamped_box", "dropped_box"), BROKEN)
def test_broken_annotations(coco_folder, annotation, kind, changes, clamped_box, dropped_box):
    good = annotation(id=2, bbox=[1, 1, 5, 5], segmentation=[[1, 1, 6, 1, 6, 6, 1, 6]])
    bad = annotation(**({"id": 66} | changes))
    arguments = coco_folder([good, bad])
    number = str(bad["id"])

    with pytest.raises(DataError) as error:
        CocoDataset(**arguments, policy="raise")
    message = str(error.value)
    assert "\n" not in message and str(arguments["json"]) in message and number in message
    assert kind == "unknown_image" or "a.png" in message

    for policy, box in (("drop", dropped_box), ("clamp", clamped_box)):
        dataset = CocoDataset(**arguments, policy=policy)
        assert dataset[0].boxes.tolist() == [[1, 1, 6, 6]] + ([] if box is None else [box])
        assert dataset.report().count(kind) == 1 and number in str(dataset.report())
        assert ("dropped" in str(dataset.report())) == (box is None)
        ids = [a["id"] for a in dataset.to_coco()["annotations"]]
        assert len(set(ids)) == len(ids)
        InputMapper(training=True)(dataset[0])


def test_objects_without_a_mask_are_kept_until_a_model_needs_masks(coco_folder, annotation):
    entries = [
        annotation(),
        annotation(id=2, segmentation=[]),
        annotation(id=4, segmentation=[[4, 5, 14, 5]]),
    ]
    for policy, expected_ids in (("drop", [1]), ("clamp", [1, 2, 4])):
        dataset = CocoDataset(**coco_folder(entries), policy=policy)
        assert dataset[0].annotation_ids.tolist() == [1, 2, 4]
        assert dataset.report().counts == {
            ("no_region", "kept for its box"): 1,
            ("bad_polygon", "left out"): 1,
        }
        dataset.require({"keypoints"})
        assert len(dataset[0]) == 3
        dataset.require({"masks"})
        dataset.require({"masks"})
        assert dataset[0].annotation_ids.tolist() == expected_ids
        assert [a["id"] for a in dataset.to_coco()["annotations"]] == expected_ids
        action = ("no_region", "dropped") if policy == "drop" else ("no_region", "kept for its box")
        assert dataset.report().counts[action] == (2 if policy == "drop" else 1)
    dataset = CocoDataset(**coco_folder(entries[:2]), policy="raise")
    with pytest.raises(
        DataError, match=r"a\.png, annotation 2: it has no mask that can be used, but the model needs"
    ):
        dataset.require({"masks"})


def test_images_without_an_object_for_the_model_are_left_out(coco_folder, annotation):
    arguments = coco_folder([annotation(), annotation(id=2, image_id=6, segmentation=...)])
    images = [{"id": i, "file_name": "a.png", "width": 40, "height": 30} for i in (5, 6)]
    content = json.loads(arguments["json"].read_text(encoding="utf-8")) | {"images": images}
    arguments["json"].write_text(json.dumps(content), encoding="utf-8")
    dataset = CocoDataset(**arguments, policy="drop", keep_empty=False)
    assert dataset.image_ids.tolist() == [5, 6]
    dataset.require({"masks"})
    assert dataset.image_ids.tolist() == [5] and len(dataset) == 1


@pytest.mark.parametrize("policy", ["drop", "clamp"])
def test_short_polygons_beside_others_cover_nothing(coco_folder, annotation, policy):
    polygons = [[4, 5, 14, 5, 14, 13, 4, 13], [4, 5, 14, 5], [], [3, 3]]
    dataset = CocoDataset(**coco_folder([annotation(segmentation=polygons)]), policy=policy)
    dataset.require({"masks"})
    assert dataset[0].bitmasks().sum() == 80 and dataset.report().counts == {("bad_polygon", "left out"): 3}


def test_mask_without_one_of_its_parts_is_none_under_drop(coco_folder, annotation):
    arguments = coco_folder([annotation(segmentation=[[4, 5, 14, 5, 14, 13], [1, 1, 5, NAN, 5, 5]])])
    assert CocoDataset(**arguments, policy="clamp")[0].bitmasks().any()
    assert CocoDataset(**arguments, policy="drop")[0].segments is None


@pytest.mark.parametrize("policy", ["drop", "clamp"])
@pytest.mark.parametrize("number", [0, 7])
def test_ids_that_all_annotations_share_are_renumbered(coco_folder, annotation, policy, number):
    entries = [annotation(id=number, bbox=[x, 5, 10, 8], segmentation=...) for x in range(8)]
    dataset = CocoDataset(**coco_folder([*entries, entries[3]]), policy=policy)
    ids = dataset[0].annotation_ids.tolist()
    assert len(ids) == len(set(ids)) == 8 and ids[0] == number
    assert dataset.report().counts == {
        ("duplicate_annotation_id", "renumbered"): 7,
        ("duplicate_annotation_id", "dropped"): 1,
    }


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
    for policy in ("drop", "clamp"):
        dataset = CocoDataset(**arguments, policy=policy)
        assert not dataset[0].keypoints.any() and dataset.report().count("bad_keypoints") == 1


def area_of(dataset):
    return dataset.to_coco()["annotations"][0]["area"]


@pytest.mark.parametrize("with_masks", [True, False])
def test_missing_area_is_that_of_the_mask(coco_folder, annotation, with_masks):
    triangle = {"bbox": [4, 5, 20, 16], "segmentation": [[4, 5, 24, 5, 4, 21]]}
    arguments = coco_folder([annotation(area=..., **triangle)])
    dataset = CocoDataset(**arguments, policy="raise", with_masks=with_masks)
    assert 150 < area_of(dataset) < 170
    if with_masks:
        assert area_of(dataset) == dataset[0].bitmasks().sum()
    code = {"size": [30, 40], "counts": [100, 7, 23, 5, 1065]}
    arguments = coco_folder([annotation(area=..., bbox=[3, 3, 10, 10], segmentation=code)])
    assert area_of(CocoDataset(**arguments, policy="raise", with_masks=with_masks)) == 12
    overlapping = [[4, 5, 14, 5, 14, 13, 4, 13]] * 2
    assert area_of(CocoDataset(**coco_folder([annotation(area=None, segmentation=overlapping)]))) == 80


def test_missing_area_without_a_mask_is_that_of_the_box(coco_folder, annotation):
    entry = annotation(area=..., bbox=[4, 5, 3, 4], segmentation=...)
    assert area_of(CocoDataset(**coco_folder([entry]), policy="raise")) == 12


@pytest.mark.parametrize("area", [-3, 0, NAN, 1e300, 10**400, "large", [80]])
def test_broken_area_is_reported_and_computed(coco_folder, annotation, area):
    arguments = coco_folder([annotation(area=area, bbox=[4, 5, 3, 4], segmentation=...)])
    for policy in ("drop", "clamp"):
        dataset = CocoDataset(**arguments, policy=policy)
        assert area_of(dataset) == 12
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
