"""Sweeps and the table at their end."""

import json

from hydet.cli.sweep import read_runs


def test_a_sweep_ends_with_one_table_of_its_runs(shapes_overrides, command, tmp_path):
    out = command(
        "train", "-m", *(o for o in shapes_overrides if "backbone" not in o), "model=faster_rcnn_fpn",
        "trainer.max_steps=1", "data.val.num_images=2", "backbone=r18_slim,r18", "optimizer.lr=0.01,0.02",
        f"hydra.sweep.dir={tmp_path}",
    )  # fmt: skip
    table = out[out.index("Sweep in") :]
    assert out.count("Sweep in") == 1
    for word in ("backbone", "optimizer.lr", "box/AP", "r18_slim", "0.01", "0.02"):
        assert word in table
    runs = json.loads((tmp_path / "sweep.json").read_text(encoding="utf-8"))
    assert len(runs) == 4
    assert {(r["overrides"]["backbone"], r["overrides"]["optimizer.lr"]) for r in runs} == {
        ("r18_slim", "0.01"), ("r18_slim", "0.02"), ("r18", "0.01"), ("r18", "0.02")
    }  # fmt: skip
    assert all((tmp_path / r["run"] / "checkpoints" / "last").exists() for r in runs)


def test_a_run_without_metrics_is_listed_last(tmp_path):
    for name, metrics in (("0", None), ("1", {"box/AP": 0.1}), ("2", {"box/AP": 0.3})):
        (tmp_path / name / ".hydra").mkdir(parents=True)
        (tmp_path / name / ".hydra" / "overrides.yaml").write_text(
            f"- optimizer.lr=0.0{name}\n", encoding="utf-8"
        )
        if metrics is not None:
            (tmp_path / name / "metrics.json").write_text(json.dumps(metrics))
    assert [r["run"] for r in read_runs(tmp_path)] == ["2", "1", "0"]
