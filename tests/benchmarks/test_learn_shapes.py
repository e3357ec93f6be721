"""The runs of ``benchmarks/learn_shapes.py`` compose and build; nothing is trained."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

import hydet

FOLDER = Path(__file__).parents[2] / "benchmarks"


def load_script():
    sys.path.insert(0, str(FOLDER))  # the script imports its neighbors by name
    try:
        spec = importlib.util.spec_from_file_location("learn_shapes", FOLDER / "learn_shapes.py")
        module = sys.modules["learn_shapes"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(FOLDER))
        sys.modules.pop("machine", None)
    return module


SCRIPT = load_script()


@pytest.mark.parametrize("name", SCRIPT.RUNS)
def test_overrides_of_a_run_compose_and_the_model_builds(name):
    run = SCRIPT.RUNS[name]
    cfg = hydet.compose(f"model={run.model}", *run.overrides)
    assert cfg.preset.name == "quick"
    values = {override.split("=")[0]: override.split("=")[1] for override in run.overrides}
    if "size.regions_per_image" in values:
        assert cfg.model.roi_heads.batch_size_per_image == int(values["size.regions_per_image"])
    with torch.device("meta"):
        hydet.instantiate(cfg.model)


def test_models_of_the_runs_are_options():
    models = {file.stem for file in (FOLDER.parent / "conf" / "model").glob("*.yaml")}
    trained = {run.model for run in SCRIPT.RUNS.values()}
    assert trained <= models


def test_proposals_come_from_a_run_of_the_table():
    assert {run.proposals_of for run in SCRIPT.RUNS.values()} - {None} <= set(SCRIPT.RUNS)


def test_a_metric_that_is_missing_is_below_its_floor():
    run = SCRIPT.RUNS["mask_rcnn_fpn"]
    assert SCRIPT.above(run, {"box/AP": 0.4, "mask/AP": 0.4})
    assert not SCRIPT.above(run, {"box/AP": 0.9})
    assert not SCRIPT.above(run, {"box/AP": 0.39, "mask/AP": 0.9})


def test_a_row_shows_results_and_floors():
    metrics = {"threads": 2, "seconds": 90.0, "box/AP": 0.5, "mask/AP": 0.25}
    row = SCRIPT.row("mask_rcnn_fpn", SCRIPT.RUNS["mask_rcnn_fpn"], metrics)
    assert "| 2 | 1.5 | box/AP 0.500, mask/AP 0.250 | 0.40, 0.40 | **no** |" in row
