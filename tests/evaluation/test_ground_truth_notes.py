from hydet.data.datasets.report import DataReport
from hydet.evaluation.ground_truth_notes import describe_ground_truth, merged_report


def test_lines_beside_the_metrics_say_what_was_left_out():
    report = DataReport("val.json")
    assert describe_ground_truth(merged_report(report)) == []
    for i in range(42):
        report.add("no_region", f"image {i}", action="dropped")
    first, second = describe_ground_truth(merged_report(report))
    assert first.startswith("The metrics are on changed ground truth: val.json has 42 problems")
    assert second == "  42 x no region, dropped: such as image 0"
    assert report.counts == {("no_region", "dropped"): 42}


def test_other_spellings_do_not_change_the_ground_truth():
    report = DataReport("val.json")
    report.add("renumbered_image_id", "image 'a'", action="renumbered")
    assert describe_ground_truth(report) == []
    report.add("no_region", "image 0", action="dropped")
    lines = describe_ground_truth(report)
    assert len(lines) == 2 and "has 1 problem," in lines[0]


def test_reports_of_several_processes_are_merged(monkeypatch):
    others = [DataReport("val.json"), DataReport("val.json")]
    for report, image in zip(others, ("a", "b")):
        report.add("no_region", "of the file", action="dropped")
        report.add("unreadable_image", image, action="skipped")
    others[1].add("not_upright", "c", action="not rotated")
    parts = [(report.source, report.counts, report.problems) for report in others]
    monkeypatch.setattr("hydet.evaluation.ground_truth_notes.all_gather", lambda value: parts)
    merged = merged_report(others[0])
    assert merged.counts[("no_region", "dropped")] == 1 and merged.counts[("not_upright", "not rotated")] == 1
    assert {p.message for p in merged.problems} == {"of the file", "a", "b", "c"}
    assert merged.counts[("unreadable_image", "skipped")] == 2
