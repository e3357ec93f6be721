import json
import math

from hydet.cli.metrics_file import read_metrics, write_metrics


def test_metrics_and_details_round_trip(tmp_path):
    path = write_metrics(tmp_path, {"box/AP": 12.5}, main_metric="box/AP", seconds=3.0)
    assert json.loads(path.read_text(encoding="utf-8")) == read_metrics(tmp_path)
    assert read_metrics(tmp_path) == {"box/AP": 12.5, "metric": "box/AP", "seconds": 3.0}


def test_numbers_that_json_lacks_are_left_out(tmp_path):
    write_metrics(tmp_path, {"box/AP": math.nan, "val_loss/total": math.inf, "x": 0.0}, main_metric="box/AP")
    assert read_metrics(tmp_path) == {"x": 0.0, "metric": "box/AP"}


def test_a_run_without_the_file_has_no_metrics(tmp_path):
    assert read_metrics(tmp_path) == {}
