import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from faster_coco_eval.core import mask as coco_mask
from PIL import Image

from hydet.data import (
    CocoDataset,
    DataError,
    InputMapper,
    build_evaluation_loader,
    build_train_loader,
    segment_to_mask,
)

NAN = float("nan")


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


def test_reads_what_is_there(coco_folder, annotation):
    dataset = CocoDataset(**coco_folder([annotation()]))
    record = dataset[0]
    assert dataset.metadata.thing_classes == ("dog", "cat") and dataset.metadata.thing_ids == (3, 9)
    assert record.boxes.tolist() == [[4, 5, 14, 13]] and record.classes.tolist() == [0]
    assert (record.image_id, record.height, record.width, record.file_name) == (5, 30, 40, "a.png")
    assert record.bitmasks().sum() == 80 and record.annotation_ids.tolist() == [1]
    assert str(dataset.report()) == "" and not dataset.report()
    assert dataset.aspect_ratios.tolist() == [40 / 30]
    given = dataset.to_coco()
    assert given["annotations"][0]["category_id"] == 3 and given["annotations"][0]["bbox"] == [4, 5, 10, 8]


def test_class_names_give_the_order(coco_folder, annotation):
    dataset = CocoDataset(**coco_folder([annotation()]), class_names=["bird", "cat", "dog"])
    assert dataset[0].classes.tolist() == [2]
    assert dataset.metadata.thing_ids[1:] == (9, 3) and dataset.metadata.thing_ids[0] not in (3, 9)
    assert dataset.to_coco()["annotations"][0]["category_id"] == 3


def test_a_category_that_the_config_does_not_know(coco_folder, annotation):
    arguments = coco_folder([annotation()])
    for policy in ("drop", "clamp", "raise"):
        with pytest.raises(DataError, match=r"'cat'.*data\.class_names=null") as error:
            CocoDataset(**arguments, class_names=["dog"], policy=policy)
        assert str(arguments["json"]) in one_line(error)
    dataset = CocoDataset(**arguments, class_names=["dog"], ignore_other_categories=True)
    assert dataset.metadata.thing_classes == ("dog",) and not dataset.report()


def code_of(mask, compressed):
    (code,) = coco_mask.encode(np.asfortranarray(mask[:, :, None].astype(np.uint8)))
    if compressed:
        return {"size": list(mask.shape), "counts": code["counts"].decode()}
    flat = mask.reshape(-1, order="F")
    edges = [0, *(np.flatnonzero(np.diff(flat.astype(int))) + 1).tolist(), flat.size]
    runs = np.diff(edges).tolist()
    return {"size": list(mask.shape), "counts": [0, *runs] if flat[0] else runs}


@pytest.mark.parametrize("compressed", [True, False])
def test_run_length_codes_and_crowds(coco_folder, annotation, compressed):
    mask = np.random.default_rng(0).random((30, 40)) < 0.5
    crowd = annotation(segmentation=code_of(mask, compressed), iscrowd=1, bbox=[0, 0, 40, 30])
    dataset = CocoDataset(**coco_folder([crowd, annotation(id=2)]), policy="raise")
    record = dataset[0]
    np.testing.assert_array_equal(record.bitmasks()[0].numpy(), mask)
    assert record.iscrowd.tolist() == [True, False]
    assert len(InputMapper(training=True)(record)["instances"]) == 1
    written = json.loads(json.dumps(dataset.to_coco()))["annotations"][0]["segmentation"]
    np.testing.assert_array_equal(segment_to_mask(written, 30, 40), mask)


def test_keypoints(coco_folder, annotation):
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
    centred = CocoDataset(**coco_folder([with_points], categories=categories), keypoint_offset=0.5)
    assert centred[0].keypoints.tolist() == [[[5.5, 6.5, 2], [7.5, 8.5, 1], [0, 0, 0]]]
    assert centred.to_coco()["annotations"][0]["keypoints"] == [5, 6, 2, 7, 8, 1, 0, 0, 0]
    with pytest.raises(DataError, match="no category has keypoints"):
        CocoDataset(**coco_folder([annotation()]), with_keypoints=True)


def test_rotated_boxes(coco_folder, annotation):
    turned = annotation(bbox=[20, 15, 10, 4, 90], segmentation=...)
    record = CocoDataset(**coco_folder([turned, annotation(id=2)]), with_masks=False)[0]
    assert record.rotated_boxes.tolist() == [[20, 15, 10, 4, 90], [9, 9, 10, 8, 0]]
    torch.testing.assert_close(record.boxes[0], torch.tensor([18.0, 10, 22, 20]))


def test_empty_images(coco_folder, annotation):
    crowd_only = coco_folder([annotation(iscrowd=1)])
    assert len(CocoDataset(**crowd_only)) == 1
    with pytest.raises(DataError, match="no image is left"):
        CocoDataset(**crowd_only, keep_empty=False)
    record = CocoDataset(**coco_folder([]))[0]
    assert len(record) == 0 and record.boxes.shape == (0, 4)
    assert len(InputMapper(training=True, mask_format=None)(record)["instances"]) == 0


def test_images_with_too_few_keypoints_are_left_out(coco_folder, annotation):
    names = ["a.png", "b.png", "c.png"]
    images = [{"id": i, "file_name": name, "width": 40, "height": 30} for i, name in enumerate(names)]
    arguments = coco_folder([annotation()])
    for name in names[1:]:
        shutil.copy(arguments["images"] / "a.png", arguments["images"] / name)
    categories = [{"id": 3, "name": "dog", "keypoints": ["nose", "tail"]}]
    annotations = [
        annotation(id=1, image_id=0, keypoints=[5, 6, 2, 0, 0, 0]),  # one on each of two objects
        annotation(id=2, image_id=0, keypoints=[0, 0, 0, 7, 8, 1]),
        annotation(id=3, image_id=1, keypoints=[0, 0, 0, 7, 8, 1]),
        annotation(id=4, image_id=2, keypoints=[0, 0, 0, 0, 0, 0]),
    ]
    arguments = coco_folder(annotations, images=images, categories=categories)
    kept = [[r.file_name for r in CocoDataset(**arguments, min_keypoints=n)] for n in range(3)]
    assert kept == [names, names[:2], names[:1]]
    with pytest.raises(DataError, match="no image is left"):
        CocoDataset(**arguments, min_keypoints=3)
    with pytest.raises(DataError, match="min_keypoints=1, but the dataset has no keypoints"):
        CocoDataset(**arguments, with_keypoints=False, min_keypoints=1)


def test_images_that_have_an_address_instead_of_a_name(coco_folder, annotation):
    """As in LVIS: v1 has addresses alone, v0.5 names of 2014 that COCO 2017 no longer has."""
    arguments = coco_folder([annotation()])
    for split in ("train2017", "val2017"):
        (arguments["images"] / split).mkdir()
        shutil.copy(arguments["images"] / "a.png", arguments["images"] / split / "000000000009.png")
    images = [
        {"id": 5, "coco_url": "http://example.org/train2017/000000000009.png", "width": 40, "height": 30},
        {
            "id": 6,
            "file_name": "COCO_val2014_000000000009.png",
            "coco_url": "http://example.org/val2017/000000000009.png",
            "width": 40,
            "height": 30,
        },
        {
            "id": 7,
            "file_name": "a.png",
            "coco_url": "http://example.org/val2017/b.png",
            "width": 40,
            "height": 30,
        },
    ]
    dataset = CocoDataset(**coco_folder([annotation()], images=images), policy="raise")
    names = ["train2017/000000000009.png", "val2017/000000000009.png", "a.png"]
    assert [record.file_name for record in dataset] == names
    assert [image["file_name"] for image in dataset.to_coco()["images"]] == names


# Kind of problem, the annotation, and under "clamp" the box that is left (None: dropped).
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


@pytest.mark.parametrize(("kind", "changes", "left"), BROKEN)
def test_broken_annotations(coco_folder, annotation, kind, changes, left):
    good = annotation(id=2, bbox=[1, 1, 5, 5], segmentation=[[1, 1, 6, 1, 6, 6, 1, 6]])
    bad = annotation(**({"id": 66} | changes))
    arguments = coco_folder([good, bad])
    number = str(bad["id"])

    with pytest.raises(DataError) as error:
        CocoDataset(**arguments, policy="raise")
    line = one_line(error)
    assert str(arguments["json"]) in line and number in line
    assert kind == "unknown_image" or "a.png" in line

    dropped = CocoDataset(**arguments, policy="drop")
    assert dropped[0].boxes.tolist() == [[1, 1, 6, 6]]
    assert dropped.report().count(kind) == dropped.report().count() == 1
    assert number in str(dropped.report()) and "dropped" in str(dropped.report())

    clamped = CocoDataset(**arguments, policy="clamp")
    assert clamped[0].boxes.tolist() == [[1, 1, 6, 6]] + ([] if left is None else [left])
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
        "evaluation sees what the file says"
    )


def test_annotation_zero_is_renumbered_for_evaluation(coco_folder, annotation):
    dataset = CocoDataset(**coco_folder([annotation(id=0), annotation(id=4)]))
    assert sorted(a["id"] for a in dataset.to_coco()["annotations"]) == [4, 5]
    assert dataset[0].annotation_ids.tolist() == [0, 4]


def test_objects_without_a_region_get_an_empty_one_for_evaluation(coco_folder, annotation):
    dataset = CocoDataset(**coco_folder([annotation(), annotation(id=2, segmentation=...)]))
    assert dataset.report().count("no_region") == 1
    assert dataset.to_coco()["annotations"][1]["segmentation"] == {"size": [30, 40], "counts": [1200]}


@pytest.mark.parametrize(
    ("kind", "images"),
    [
        ("missing_image", [{"id": 6, "file_name": "nowhere.png", "width": 5, "height": 5}]),
        ("duplicate_image_id", [{"id": 5, "file_name": "b.png", "width": 40, "height": 30}]),
        ("bad_image_entry", [{"file_name": "b.png"}]),
        ("unreadable_image", [{"id": 6, "file_name": "text.png"}]),
    ],
)
def test_broken_images_in_the_file(coco_folder, annotation, kind, images):
    arguments = coco_folder([annotation()])
    Image.new("RGB", (40, 30)).save(arguments["images"] / "b.png")
    (arguments["images"] / "text.png").write_text("no image")
    first = {"id": 5, "file_name": "a.png", "width": 40, "height": 30}
    extra = annotation(id=2, image_id=6)
    arguments = coco_folder(
        [annotation(), *([extra] if images[0].get("id") == 6 else [])], images=[first, *images]
    )
    for policy in ("drop", "clamp"):
        dataset = CocoDataset(**arguments, policy=policy)
        assert len(dataset) == 1 and dataset.report().count(kind) == dataset.report().count() == 1
        assert "png" in str(dataset.report())
    with pytest.raises(DataError, match="png"):
        CocoDataset(**arguments, policy="raise")


def test_sizes_missing_from_the_file_are_read_from_the_image(coco_folder, annotation):
    coco_folder()
    dataset = CocoDataset(**coco_folder([annotation()], images=[{"id": 5, "file_name": "a.png"}]))
    assert dataset.aspect_ratios.tolist() == [40 / 30]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "not JSON"),
        ("[1]", "not a COCO file"),
        ('{"images": []}', "categories"),
        ('{"images": [], "categories": [{"id": "a", "name": "b"}]}', "integer 'id'"),
        ('{"images": [], "categories": [{"id": 1, "name": "b"}, {"id": 1, "name": "c"}]}', "twice"),
        ('{"images": [], "categories": [{"id": 1, "name": "b"}]}', "no image is left"),
        ('{"images": [], "categories": [{"id": 1, "name": "b"}], "annotations": {}}', "'annotations'"),
    ],
)
def test_files_of_another_kind(tmp_path, content, says):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(DataError, match=says) as error:
        CocoDataset(json=tmp_path / "x.json", images=tmp_path)
    assert "x.json" in one_line(error)


def test_missing_files(coco_folder, tmp_path):
    with pytest.raises(DataError, match=r"nothing\.json: no such file"):
        CocoDataset(json=tmp_path / "nothing.json", images=tmp_path)
    with pytest.raises(DataError, match="no such image folder"):
        CocoDataset(json=coco_folder()["json"], images=tmp_path / "nowhere")
    with pytest.raises(ValueError, match="policy"):
        CocoDataset(**coco_folder(), policy="ignore")


def truncate(path):
    path.write_bytes(path.read_bytes()[:300])


def test_a_truncated_image(coco_folder, annotation):
    images = [{"id": i, "file_name": n, "width": 40, "height": 30} for i, n in ((5, "a.png"), (6, "b.png"))]
    arguments = coco_folder([annotation()])
    Image.open(arguments["images"] / "a.png").save(arguments["images"] / "b.png")
    arguments = coco_folder([annotation(), annotation(id=2, image_id=6)], images=images)
    truncate(arguments["images"] / "b.png")
    mapper = InputMapper(training=True)
    for policy in ("drop", "raise"):
        dataset = CocoDataset(**arguments, policy=policy)
        assert len(dataset) == 2
        with pytest.raises(DataError, match=r"b\.png") as error:
            dataset[1]
        one_line(error)
    with pytest.raises(DataError, match=r"b\.png"):
        list(build_evaluation_loader(dataset, mapper))
    strict = iter(build_train_loader(dataset, mapper, batch_size=2))
    with pytest.raises(DataError, match=r"b\.png"):
        next(strict)
    tolerant = CocoDataset(**arguments, policy="drop")
    with pytest.warns(UserWarning, match=r"b\.png"):
        batch = next(iter(build_train_loader(tolerant, mapper, batch_size=2)))
    assert [x["image_id"] for x in batch] == [5, 5]
    assert tolerant.report().count("unreadable_image") == 1
    tolerant = CocoDataset(**arguments, policy="drop")
    with pytest.warns(UserWarning, match=r"b\.png"):
        (batch,) = build_evaluation_loader(tolerant, mapper)
    assert [x["image_id"] for x in batch] == [5]
    assert tolerant.report().count("unreadable_image") == 1
    assert CocoDataset(**arguments).check().count("unreadable_image") == 1


def turned_jpeg(path, orientation):
    pixels = np.zeros((30, 40, 3), dtype=np.uint8)
    pixels[:10, :10, 0] = 255  # red in the corner, as stored
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif, quality=95)


def test_exif_orientation(coco_folder, annotation):
    arguments = coco_folder(
        [annotation()], images=[{"id": 5, "file_name": "a.jpg", "width": 30, "height": 40}]
    )
    turned_jpeg(arguments["images"] / "a.jpg", 6)  # to be turned clockwise: the corner moves to the right
    dataset = CocoDataset(**arguments, policy="raise")
    image = dataset[0].image
    assert image.shape == (3, 40, 30)
    assert image[0, 3, 26] > 200 and image[0, 3, 3] < 60
    assert not dataset.report()


def test_annotations_of_the_image_as_stored(coco_folder, annotation):
    arguments = coco_folder(
        [annotation()], images=[{"id": 5, "file_name": "a.jpg", "width": 40, "height": 30}]
    )
    turned_jpeg(arguments["images"] / "a.jpg", 6)
    dataset = CocoDataset(**arguments, policy="drop")
    record = dataset[0]
    assert record.image.shape == (3, 30, 40) and record.image[0, 3, 3] > 200
    dataset[0]
    assert dataset.report().count("not_upright") == 1 and "a.jpg" in str(dataset.report())


def test_another_size_than_the_file_says(coco_folder, annotation):
    images = [{"id": 5, "file_name": "a.png", "width": 80, "height": 60}]
    coco_folder()
    mask = np.ones((60, 80), dtype=bool)
    arguments = coco_folder(
        [annotation(bbox=[30, 20, 40, 30]), annotation(id=2, segmentation=code_of(mask, True))], images=images
    )
    for policy in ("drop", "raise"):
        with pytest.raises(DataError, match=r"a\.png.*40 x 30.*80 x 60"):
            CocoDataset(**arguments, policy=policy)[0]
    dataset = CocoDataset(**arguments, policy="clamp")
    record = dataset[0]
    assert record.boxes[0].tolist() == [30, 20, 40, 30]
    assert record.bitmasks().shape == (2, 30, 40) and not record.bitmasks()[1].any()
    assert dataset.report().count("other_size") == 1


def test_workers_get_the_dataset(coco_folder, annotation):
    dataset = CocoDataset(**coco_folder([annotation()]))
    again = pickle.loads(pickle.dumps(dataset))
    assert again[0].boxes.tolist() == dataset[0].boxes.tolist() and again.metadata == dataset.metadata
    (batch,) = build_evaluation_loader(dataset, InputMapper(training=False), num_workers=1)
    assert batch[0]["image_id"] == 5


def test_the_report_counts_all_and_shows_the_first(coco_folder, annotation):
    broken = [annotation(id=i, bbox=[100, 100, 5, 5]) for i in range(10, 60)]
    report = CocoDataset(**coco_folder([annotation(), *broken]), policy="drop").report()
    assert report.count("box_outside") == 50 and report.count("bad_rle") == 0
    text = str(report)
    assert "50 x box outside, dropped: such as a.png, annotation 10" in text and len(text.splitlines()) == 2


def test_classes_of_images(coco_folder, annotation):
    dataset = CocoDataset(**coco_folder([annotation(), annotation(id=2, category_id=9, iscrowd=1)]))
    assert dataset.classes_of_images() == [[0]]
