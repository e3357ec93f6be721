import json

import pytest

from hydet.data import DataError, DataReport
from hydet.data.coco.ids import IdTable
from hydet.data.coco.panoptic import PanopticLabels
from hydet.data.coco.panoptic_file import read_panoptic_file
from hydet.data.coco.problems import ProblemHandler

THING, STUFF = {"id": 5, "name": "dog", "isthing": 1}, {"id": 9, "name": "sky", "isthing": 0}
NAN = float("nan")


@pytest.fixture
def write(tmp_path):
    def write(segments, *, entry=None, categories=(THING, STUFF), **others):
        good = {"image_id": 3, "file_name": "good.png", "segments_info": [{"id": 1, "category_id": 9}]}
        entry = {"image_id": 7, "file_name": "a.png", "segments_info": segments} | (entry or {})
        content = {"categories": list(categories), "annotations": [entry, good]} | others
        path = tmp_path / "p.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    return write


def read(path, policy, image_ids=None, thing_classes=("dog",)):
    report = DataReport(str(path))
    problems = ProblemHandler(path, policy=policy, report=report)
    return read_panoptic_file(path, thing_classes, None, image_ids=image_ids, problems=problems), report


SEGMENT = {"id": 300, "category_id": 5, "area": 12, "iscrowd": 0}


@pytest.mark.parametrize(
    ("kind", "segments"),
    [
        ("bad_segment", [5]),
        ("bad_segment", [{}]),
        ("bad_segment", [SEGMENT | {"id": 0}]),
        ("bad_segment", [SEGMENT | {"id": 2**24}]),
        ("bad_segment", [SEGMENT | {"id": 2**70}]),
        ("bad_segment", [SEGMENT | {"id": NAN}]),
        ("bad_segment", [SEGMENT | {"id": [1]}]),
        ("unknown_category", [SEGMENT | {"category_id": 77}]),
        ("unknown_category", [SEGMENT | {"category_id": [5]}]),
        ("bad_area", [SEGMENT | {"area": "large"}]),
        ("bad_area", [SEGMENT | {"area": 2**70}]),
        ("bad_area", [SEGMENT | {"area": -1}]),
        ("bad_flag", [SEGMENT | {"iscrowd": "maybe"}]),
        ("duplicate_segment_id", [SEGMENT, SEGMENT]),
        ("bad_panoptic_entry", {"id": 1}),
        ("bad_panoptic_entry", None),
    ],
)
def test_broken_segments_are_reported(write, kind, segments):
    path = write(segments)
    file, report = read(path, "drop")
    assert file.image_ids.tolist() == [3, 7] and report.count(kind) == report.count() == 1
    assert "a.png" in str(report)
    with pytest.raises(DataError, match=r"p\.json: .*a\.png"):
        PanopticLabels(path, None, ["dog"])


@pytest.mark.parametrize(
    "entry", [{"image_id": None}, {"image_id": [7]}, {"file_name": 5}, {"file_name": ""}]
)
def test_broken_entries_are_reported(write, entry):
    file, report = read(write([], entry=entry), "drop")
    assert file.image_ids.tolist() == [3] and report.counts == {("bad_panoptic_entry", "dropped"): 1}


def test_repeated_images_are_reported(write):
    file, report = read(write([SEGMENT], entry={"image_id": "3"}), "drop")
    assert len(file.image_ids) == 1 and report.counts == {("duplicate_panoptic_entry", "dropped"): 1}
    assert "image '3' has the map a.png already" not in str(report), "the first entry stays"


def test_ids_in_other_forms(write):
    segments = [{"id": "300", "category_id": 5.0, "area": "12", "iscrowd": 1}]
    file, report = read(write(segments, entry={"image_id": "img"}), "raise", IdTable(["x", "img", 3]))
    assert file.image_ids.tolist() == [3, 5] and file.segments.ids.tolist() == [1, 300]
    assert file.segments.areas.tolist() == [-1, 12] and file.segments.iscrowd.tolist() == [False, True]
    assert not report


@pytest.mark.parametrize(
    "content",
    [
        {"categories": {}},
        {"annotations": {}},
        {"annotations": None},
        {"categories": [5]},
        {"categories": "x"},
    ],
)
def test_other_files_are_refused(write, content):
    with pytest.raises(DataError, match=r"p\.json: "):
        read(write([], **content), "drop")


def test_more_than_255_labels_are_refused(write):
    stuff = [{"id": i, "name": f"s{i}", "isthing": 0} for i in range(10, 264)]
    assert len(read(write([], categories=[THING, *stuff], annotations=[]), "raise")[0].stuff_classes) == 255
    stuff.append({"id": 300, "name": "last", "isthing": 0})
    with pytest.raises(DataError, match=r"p\.json: there are 256 semantic labels, but at most 255"):
        read(write([], categories=[THING, *stuff], annotations=[]), "drop")


def test_more_than_255_things(write):
    things = [{"id": i, "name": f"t{i}", "isthing": True} for i in range(10, 410)]
    file, _ = read(
        write([SEGMENT | {"category_id": 409}], categories=[*things, STUFF]),
        "raise",
        None,
        [t["name"] for t in things],
    )
    assert file.segments.classes.tolist() == [1, 399]
