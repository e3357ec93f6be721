"""Sweeps and the table at their end."""

import io
import json

from rich.console import Console

from hydet.cli.sweep import read_runs, record_failure, table_of


def test_a_sweep_ends_with_one_table_of_its_runs(shapes_overrides, command, tmp_path):
    out = command(
        "train", "-m", *(o for o in shapes_overrides if "backbone" not in o), "model=faster_rcnn_fpn",
        "trainer.max_steps=1", "data.val.num_images=2", "backbone=r18_slim,r18", "optimizer.lr=0.01",
        f"hydra.sweep.dir={tmp_path}",
    )  # fmt: skip
    table = out[out.index("Sweep in") :]
    assert out.count("Sweep in") == 1
    for word in ("backbone", "box/AP", "r18_slim"):
        assert word in table
    runs = json.loads((tmp_path / "sweep.json").read_text(encoding="utf-8"))
    assert len(runs) == 2
    assert {(r["overrides"]["backbone"], r["overrides"]["optimizer.lr"]) for r in runs} == {
        ("r18_slim", "0.01"), ("r18", "0.01")
    }  # fmt: skip
    assert all((tmp_path / r["run"] / "checkpoints" / "last").exists() for r in runs)


def test_a_run_without_metrics_is_listed_last(tmp_path):
    for name, metrics in (("0", None), ("1", {"box/AP": 0.1}), ("2", {"box/AP": 0.3})):
        (tmp_path / name / ".hydra").mkdir(parents=True)
        (tmp_path / name / ".hydra" / "overrides.yaml").write_text(
            f"- optimizer.lr=0.0{name}\n", encoding="utf-8"
        )
        if metrics is not None:
            (tmp_path / name / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    assert [r["run"] for r in read_runs(tmp_path)] == ["2", "1", "0"]


def make_run(folder, overrides, metrics=None):
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(json.dumps(overrides), encoding="utf-8")
    if metrics is not None:
        (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")


def printed(table, width=120):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


def test_the_smallest_loss_is_the_best(tmp_path):
    for name, loss in (("a", 0.3), ("b", 0.1), ("c", 0.2)):
        make_run(tmp_path / name, [f"seed={loss}"], {"metric": "val_loss/total", "val_loss/total": loss})
    assert [run["run"] for run in read_runs(tmp_path)] == ["b", "c", "a"]


def test_nested_folders_and_lists_and_brackets_are_shown(tmp_path):
    for name, short in (("backbone=r18/x", "[64,96]"), ("backbone=r34/x", "[128]")):
        make_run(
            tmp_path / name, [f"augment.train.resize.short={short}"], {"metric": "box/AP", "box/AP": 0.5}
        )
    runs = read_runs(tmp_path)
    assert {run["run"] for run in runs} == {"backbone=r18/x", "backbone=r34/x"}
    text = printed(table_of(runs))
    assert "[64,96]" in text and "[128]" in text


def test_every_failure_has_its_reason(tmp_path):
    for name in ("0", "1"):
        make_run(tmp_path / name, [f"seed={name}"])
        record_failure(tmp_path / name, f"reason {name}")
    make_run(tmp_path / "2", ["seed=2"], {"metric": "box/AP", "box/AP": 0.5})
    assert {run["run"]: run["failure"] for run in read_runs(tmp_path)} == {
        "0": "reason 0",
        "1": "reason 1",
        "2": None,
    }
