from pathlib import Path

import pytest

from hydet.data import DataError, DataReport
from hydet.data.coco.problems import BrokenAnnotationError, ProblemHandler


def make_handler(policy):
    report = DataReport("a.json")
    return ProblemHandler(Path("a.json"), policy=policy, report=report), report


def test_raise_names_the_file():
    handler, report = make_handler("raise")
    with pytest.raises(DataError, match=r"^a\.json: image 3 is broken$"):
        handler.add("bad_image_entry", "image 3 is broken")
    assert not report


@pytest.mark.parametrize("policy", ["drop", "raise"])
def test_only_clamp_repairs(policy):
    handler, report = make_handler(policy)
    with pytest.raises(BrokenAnnotationError, match="no area") as error:
        handler.repair("empty_box", "a.png, annotation 3", "no area", action="clamped")
    assert error.value.kind == "empty_box" and not report


def test_repairs_are_reported():
    handler, report = make_handler("clamp")
    handler.repair("empty_box", "a.png, annotation 3", "no area", action="clamped")
    handler.add("missing_image", "b.png: no such file")
    assert report.counts == {("empty_box", "clamped"): 1, ("missing_image", "dropped"): 1}
    assert report.problems[0].message == "a.png, annotation 3: no area"


def test_notes_are_reported_under_every_policy():
    for policy in ("drop", "clamp", "raise"):
        handler, report = make_handler(policy)
        handler.note("other_file_name", "A.PNG stands for a.png", action="found in another form")
        assert report.count("other_file_name") == 1


def test_messages_name_a_file_on_one_line_of_limited_length():
    handler, report = make_handler("drop")
    handler.add("unknown_image", "annotation 3: no\nimage", names_image=False)
    handler.add("missing_image", f"{'x' * 5000}.png: no such file")
    assert report.problems[0].message == r"a.json: annotation 3: no\nimage"
    assert len(report.problems[1].message) < 700 and report.problems[1].message.endswith(
        "x.png: no such file"
    )
    handler, _ = make_handler("raise")
    with pytest.raises(DataError, match=r"^a\.json: annotation 3: no\\nimage$"):
        handler.add("unknown_image", "annotation 3: no\nimage", names_image=False)
