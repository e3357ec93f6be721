import shutil

import pytest
from PIL import Image

from hydet.data import CocoDataset, DataError


def test_coco_url_replaces_a_missing_file_name(coco_folder, annotation):
    """LVIS v1 has only ``coco_url``; LVIS v0.5 has file names of COCO 2014, which COCO 2017 does not use."""
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


@pytest.mark.parametrize(
    ("kind", "images"),
    [
        ("missing_image", [{"id": 6, "file_name": "nowhere.png", "width": 5, "height": 5}]),
        ("duplicate_image_id", [{"id": 5, "file_name": "b.png", "width": 40, "height": 30}]),
        ("bad_image_entry", [{"file_name": "b.png"}]),
        ("unreadable_image", [{"id": 6, "file_name": "text.png"}]),
    ],
)
def test_broken_image_entries_are_reported(coco_folder, annotation, kind, images):
    arguments = coco_folder([annotation()])
    Image.new("RGB", (40, 30)).save(arguments["images"] / "b.png")
    (arguments["images"] / "text.png").write_text("no image", encoding="utf-8")
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


def test_missing_sizes_are_read_from_the_image(coco_folder, annotation):
    coco_folder()
    dataset = CocoDataset(**coco_folder([annotation()], images=[{"id": 5, "file_name": "a.png"}]))
    assert dataset.aspect_ratios.tolist() == [40 / 30]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "not a COCO file"),
        ('{"images": []}', "categories"),
        ('{"images": [], "categories": [{"id": [1], "name": "b"}]}', "integer 'id'"),
        ('{"images": [], "categories": [{"id": 1, "name": "b"}, {"id": 1, "name": "c"}]}', "twice"),
        ('{"images": [], "categories": [{"id": 1, "name": "b"}]}', "no image is left"),
        ('{"images": [], "categories": [{"id": 1, "name": "b"}], "annotations": {}}', "'annotations'"),
    ],
)
def test_other_json_files_are_refused(tmp_path, content, message):
    (tmp_path / "x.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message) as error:
        CocoDataset(json=tmp_path / "x.json", images=tmp_path)
    assert "x.json" in str(error.value) and "\n" not in str(error.value)


def test_missing_files(coco_folder, tmp_path):
    with pytest.raises(DataError, match=r"nothing\.json: no such file"):
        CocoDataset(json=tmp_path / "nothing.json", images=tmp_path)
    with pytest.raises(DataError, match="no such image folder"):
        CocoDataset(json=coco_folder()["json"], images=tmp_path / "nowhere")


def test_ids_without_integers_are_numbered_in_order(coco_folder, annotation):
    arguments = coco_folder()
    for name in "bc":
        shutil.copy(arguments["images"] / "a.png", arguments["images"] / f"{name}.png")
    ids = {"a.png": "img-a", "b.png": 2**64, "c.png": 1}
    images = [{"id": i, "file_name": name, "width": 40, "height": 30} for name, i in ids.items()]
    entries = [annotation(id=k, image_id=i, category_id="k") for k, i in enumerate(ids.values(), 1)]
    arguments = coco_folder(entries, images=images, categories=[{"id": "k", "name": "kite"}])
    dataset = CocoDataset(**arguments, policy="raise")
    assert dataset.image_ids.tolist() == [2, 3, 1] and dataset.metadata.thing_ids == (1,)
    assert [len(record) for record in dataset] == [1, 1, 1]
    assert dataset.report().counts == {("renumbered_image_id", "renumbered"): 2}
    assert "'img-a'" in str(dataset.report())


@pytest.mark.parametrize(
    "size",
    [
        {"width": 2**70, "height": 30},
        {"width": "wide", "height": 30},
        {"width": 40.5, "height": 30},
        {"width": -1},
    ],
)
def test_broken_sizes_are_read_from_the_image(coco_folder, annotation, size):
    coco_folder()
    arguments = coco_folder([annotation()], images=[{"id": 5, "file_name": "a.png"} | size])
    dataset = CocoDataset(**arguments)
    assert dataset.aspect_ratios.tolist() == [40 / 30]
    assert dataset.report().counts == {("bad_image_size", "read from the image"): 1}


def test_lvis_lists_with_other_values_are_reported(coco_folder, annotation):
    coco_folder()
    image = {"id": 5, "file_name": "a.png", "width": 40, "height": 30}
    image |= {"neg_category_ids": ["9", [], 3.0], "not_exhaustive_category_ids": 9}
    dataset = CocoDataset(**coco_folder([annotation()], images=[image]), policy="clamp")
    assert dataset.to_coco()["images"][0]["neg_category_ids"] == [9, 3]
    assert dataset.report().count("bad_federated_list") == 2


def test_missing_file_names_the_nearest_one(coco_folder, annotation):
    coco_folder()
    image = {"id": 5, "file_name": "aa.png", "width": 40, "height": 30}
    with pytest.raises(DataError, match=r"aa\.png: no such file; the nearest is a\.png"):
        CocoDataset(**coco_folder([annotation()], images=[image]))


def test_two_names_never_stand_for_one_file(coco_folder, annotation):
    """Files of two folders must not be replaced by files of the same names in a third one."""
    coco_folder()
    sizes = {"width": 40, "height": 30}
    images = [{"id": 5, "file_name": "train/a.png"} | sizes, {"id": 6, "file_name": "val/a.png"} | sizes]
    with pytest.raises(DataError, match="2 x missing image"):
        CocoDataset(**coco_folder([annotation()], images=images))


def test_report_says_why_no_image_is_left(coco_folder, annotation):
    entries = [annotation(id=i, category_id=27) for i in range(1, 25)]
    entries.append(annotation(id=30, bbox=[50, 50, 1, 1], segmentation=...))
    with pytest.raises(
        DataError, match="no image has an annotation that can be used; 24 x unknown category"
    ) as error:
        CocoDataset(**coco_folder(entries), keep_empty=False)
    assert "1 x box outside" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(DataError, match=r"all 1 annotations are crowds \(iscrowd is 1\)"):
        CocoDataset(**coco_folder([annotation(iscrowd=1)]), keep_empty=False)
