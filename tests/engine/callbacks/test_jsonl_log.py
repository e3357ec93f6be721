import json
import math

import pytest

from hydet.engine.callbacks import Checkpoints, Evaluation, JsonlLog


def read_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_training_and_evaluation_lines(tiny, tmp_path):
    metric = tiny.Metric([math.nan, 1.0])
    callbacks = [JsonlLog(every=2), Evaluation(every=4, loader=tiny.make_batches(), evaluators=metric)]
    tiny.build_trainer(tmp_path, max_steps=5, callbacks=callbacks).fit()
    lines = read_lines(tmp_path / "metrics.jsonl")
    kinds = [(line["step"], line["kind"]) for line in lines]
    assert kinds == [(2, "training"), (4, "training"), (4, "evaluation"), (5, "training"), (5, "evaluation")]
    assert lines[2]["quality"] is None
    assert lines[0]["loss/total"] == pytest.approx(lines[0]["loss/error"] + lines[0]["loss/size"])
    assert {"lr", "images_per_second", "memory_gb", "data_fraction"} <= lines[0].keys()


def test_each_step_has_one_line_after_a_resume(tiny, tmp_path):
    def callbacks():
        return [JsonlLog(every=1), Checkpoints(every=2)]

    tiny.build_trainer(tmp_path, max_steps=2, callbacks=callbacks()).fit()
    file = tmp_path / "metrics.jsonl"
    with file.open("a", encoding="utf-8") as stream:
        stream.write('{"step": 3, "kind": "training"}\n{"step": 4, "ki')  # the run continued, and was killed
    tiny.build_trainer(tmp_path, max_steps=4, callbacks=callbacks()).fit(resume="auto")
    assert [line["step"] for line in read_lines(file)] == [1, 2, 3, 4]


def test_files_of_other_runs_are_renamed(tiny, tmp_path):
    for _ in range(3):
        tiny.build_trainer(tmp_path, max_steps=1, callbacks=[JsonlLog(every=1)]).fit()
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["metrics-1.jsonl", "metrics-2.jsonl", "metrics.jsonl"]
