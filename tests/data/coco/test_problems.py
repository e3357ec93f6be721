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
