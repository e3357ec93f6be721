"""Counts and lines of data reports."""

import copy

from hydet.data import DataReport


def test_empty_report_is_false_and_has_no_text():
    report = DataReport("a.json")
    assert not report and str(report) == "" and report.count() == 0


def test_report_counts_all_problems_and_lists_the_first():
    report = DataReport("a.json")
    for i in range(50):
        report.add("box_outside", f"image {i}", action="dropped")
    report.add("bad_rle", "image 7, annotation 3", action="left out")
    assert report and report.count() == 51
    assert report.count("box_outside") == 50 and report.count("empty_box") == 0
    assert len(report.problems) < 51
    assert str(report).splitlines() == [
        "a.json: 51 problems",
        "  50 x box outside, dropped: such as image 0",
        "  1 x bad rle, left out: image 7, annotation 3",
    ]


def test_problems_that_workers_record_are_merged_once():
    report = DataReport("a.json")
    report.add("bad_rle", "found in the file", action="left out")
    workers = [copy.deepcopy(report), copy.deepcopy(report)]
    for worker in workers:
        assert worker.take_recorded() == []  # nothing is recorded before the start
        worker.start_recording()
        worker.add("other_size", "a.jpg", action="clamped")
        report.merge(worker.take_recorded())
        worker.start_recording()
        worker.add("not_upright", "b.jpg", action="not rotated")
        problems = worker.take_recorded()
        assert [p.message for p in problems] == ["b.jpg"] and worker.take_recorded() == []
        report.merge(problems)
    assert report.counts == {
        ("bad_rle", "left out"): 1, ("other_size", "clamped"): 1, ("not_upright", "not rotated"): 1
    }  # fmt: skip


def test_problems_that_were_handled_in_another_way_are_removed():
    report = DataReport("a.json")
    for kind in ("no_region", "bad_rle", "no_region"):
        report.add(kind, "a.jpg, annotation 1", action="left out")
    report.remove("no_region")
    assert report.counts == {("bad_rle", "left out"): 1} and [p.kind for p in report.problems] == ["bad_rle"]


def test_problems_added_since_a_copy_of_the_counts():
    report = DataReport("a.json")
    report.add("box_outside", "image 1", action="clipped")
    before = dict(report.counts)
    assert not report.added_since(before)
    report.add("box_outside", "image 2", action="clipped")
    report.add("other_size", "image 3", action="labels scaled")
    added = report.added_since(before)
    assert added.counts == {("box_outside", "clipped"): 1, ("other_size", "labels scaled"): 1}
    assert added.summary() == [
        "1 x box outside, clipped: image 2",
        "1 x other size, labels scaled: image 3",
    ]
