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
        ('{"images": [], "categories": [{"id": "a", "name": "b"}]}', "integer 'id'"),
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
