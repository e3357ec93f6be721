"""``benchmarks/models.py`` on a small model; its tables of made-up results."""

import argparse
import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from hydet.runs.benchmark_run import Measurement
from hydet.runs.benchmark_works import Variant
from hydet.runs.machine_limits import MachineLimits

FOLDER = Path(__file__).parents[2] / "benchmarks"
LIMITS = {"fp32": MachineLimits(flops=1e11, bytes=2e10), "bf16": MachineLimits(flops=2e11, bytes=2e10)}
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def load_script(name):
    sys.path.insert(0, str(FOLDER))  # the script imports its neighbors by name
    try:
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(FOLDER))
        sys.modules.pop("machine", None)
    return module


MODELS = load_script("models")


def names(*args, **kwargs):
    return [variant.name for variant in MODELS.variants(*args, **kwargs)]


def test_forms_on_a_cpu():
    assert names("fcos", "inference", CPU, bf16=False) == ["torchvision", "hydet, exact", "hydet, fast"]
    assert names("panoptic_fpn", "inference", CPU, bf16=True) == [
        "hydet, exact",
        "hydet, fast",
        "hydet, bf16",
    ]


def test_forms_on_a_gpu_have_every_precision_and_every_execution():
    forms = MODELS.variants("retinanet", "inference", CUDA, bf16=True)
    fast = {(f.precision, f.compile, f.cuda_graph) for f in forms if not f.torchvision and f.mode != "exact"}
    runs = ((False, False), (True, False), (True, True))
    assert fast == {(precision, *run) for precision in ("fp32", "tf32", "bf16") for run in runs}
    assert {f.precision for f in forms if f.torchvision} == {"fp32", "tf32", "bf16"}
    assert len({f.name for f in forms}) == len(forms)
    assert not any(f.compile for f in MODELS.variants("retinanet", "training", CUDA, bf16=True))


@pytest.fixture
def section():
    seconds = {Variant(torchvision=True): 4.0, Variant(): 3.0, Variant("fast"): 2.0, Variant("bf16"): 1.0}
    results = [(form, Measurement(form.name, [time], {}, 2**20)) for form, time in seconds.items()]
    return MODELS.Section("fcos", "inference", 2, int(1e11), results)


@pytest.mark.parametrize(
    ("index", "cells"),
    [
        (0, ["torchvision", "4", "4 to 4", "0.5", "-", "0.75", "1", "-"]),
        (2, ["hydet, fast", "2", "2 to 2", "1", "2.00", "1.50", "1", "50%"]),
        (3, ["hydet, bf16", "1", "1 to 1", "2", "4.00", "3.00", "1", "50%"]),  # torchvision has no bf16 here
    ],
)
def test_a_row_compares_a_form_with_torchvision_and_the_exact_form(section, index, cells):
    assert MODELS.row(section, *section.results[index], LIMITS) == ["FCOS", *cells]


@pytest.mark.parametrize("model", MODELS.MODELS)
def test_configs_of_the_models_compose(model):
    args = argparse.Namespace(size=(64, 96), backbone="r50", model_size="standard", device="cpu")
    config = MODELS.compose(args, model, "inference", 1)
    assert list(config.image_size) == [64, 96] and config.work == "inference"


def test_a_report_of_a_small_model(monkeypatch, tmp_path, capsys):
    command = [
        "models.py",
        "--models",
        "panoptic_fpn",
        "--size",
        "64",
        "96",
        "--work",
        "inference",
        "--runs",
        "1",
    ]
    small = ["--warmup", "0", "--backbone", "r18_slim", "--model-size", "slim", "--no-memory"]
    monkeypatch.setattr(sys, "argv", [*command, *small, "--results", str(tmp_path)])
    monkeypatch.setattr(MODELS, "measure_limits", lambda device, **settings: LIMITS["fp32"])
    assert MODELS.main() == 0
    (path,) = tmp_path.glob("models_cpu_*.md")
    text = path.read_text(encoding="utf-8")
    assert text.strip() in capsys.readouterr().out
    assert (
        "| Panoptic FPN | hydet, fast |" in text
        and "product: fp32 100" in text
        and "--models panoptic_fpn" in text
    )
    assert "## Stages of inference" in text and "semantic head" in text


def test_a_processor_without_bf16_is_named(monkeypatch, section):
    monkeypatch.setattr(MODELS, "has_fast_bfloat16", lambda device: False)
    args = argparse.Namespace(device="cpu", backbone="r50", size=(64, 96), runs=1)
    assert "the processor has no bf16 instructions" in MODELS.report(args, [section], LIMITS)
