"""``benchmark`` of small models on random images."""

import json

import pytest

SMALL = [
    "backbone=r18_slim",
    "size=slim",
    "image_size=[64,96]",
    "runs=2",
    "warmup=0",
    "num_classes=3",
    "peak_memory=here",
]


@pytest.fixture
def benchmark(command, tmp_path):
    def run(*arguments):
        printed = command("benchmark", *SMALL, f"output_dir={tmp_path}/benchmark", *arguments)
        assert "median, s" in printed
        return json.loads((tmp_path / "benchmark" / "benchmark.json").read_text(encoding="utf-8"))

    return run


def test_inference_beside_the_exact_model(benchmark):
    report = benchmark("model=mask_rcnn_fpn", "against=exact")
    assert report["parameters"] > 0 and report["flops"] > 0 and report["image_size"] == [64, 96]
    fast, exact = report["models"]
    assert [fast["name"], exact["name"]] == ["hydet, fast", "hydet, exact"]
    for model in (fast, exact):
        assert len(model["seconds"]) == 2 and model["median"] > 0
        assert list(model["stages"]) == ["data", "backbone", "proposals", "heads", "postprocessing"]
        assert 0 < model["stages"]["backbone"] < max(model["seconds"])


def test_a_training_step(benchmark):
    report = benchmark("model=retinanet", "work=training", "batch_size=2")
    assert report["work"] == "training" and report["models"][0]["median"] > 0


def test_graphs_are_counted(benchmark):
    report = benchmark("model=semantic_fpn", "data=shapes_panoptic", "graph=true", "num_stuff_classes=5")
    assert report["graph"] == {"breaks": 0, "compilations": 1, "first_break": None}


def test_models_without_a_counterpart_are_named(failure, tmp_path):
    line = failure("benchmark", *SMALL, f"output_dir={tmp_path}", "model=semantic_fpn", "against=torchvision")
    assert "torchvision has no counterpart of SemanticSegmentor" in line
