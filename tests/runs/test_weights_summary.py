"""Summaries of weight files."""

from pathlib import PurePath

import torch

from hydet.interop import recipe
from hydet.runs.weights_summary import summarize_modules, summarize_weights

TENSORS = {
    "backbone.stem.conv1.weight": torch.zeros(8, 3, 7, 7),
    "backbone.stem.conv1.norm.weight": torch.zeros(8),
    "backbone.stem.conv1.norm.bias": torch.zeros(8),
    "roi_heads.box_predictor.cls_score.weight": torch.zeros(5, 8),
    "roi_heads.box_predictor.cls_score.bias": torch.zeros(5),
}


def test_tensors_are_grouped_by_module():
    backbone, heads = summarize_modules(TENSORS, 1)
    assert (backbone.name, backbone.num_tensors, backbone.num_parameters) == ("backbone", 3, 8 * 147 + 16)
    assert backbone.shapes == {}
    assert heads.shapes == {"box_predictor.cls_score.weight": (5, 8), "box_predictor.cls_score.bias": (5,)}
    assert [m.name for m in summarize_modules(TENSORS, 9)] == [
        "backbone.stem.conv1", "backbone.stem.conv1.norm", "roi_heads.box_predictor.cls_score",
    ]  # fmt: skip
    assert summarize_modules({"scale": torch.zeros(())}, 2)[0].name == ""


def test_a_plain_file_has_no_model_but_a_number_of_classes(tmp_path):
    torch.save(TENSORS, tmp_path / "a.pth")
    summary = summarize_weights(tmp_path / "a.pth")
    assert (summary.format, summary.model, summary.overrides, summary.num_classes) == (
        "state dict",
        None,
        (),
        4,
    )


def test_the_file_of_a_recipe_has_a_model_and_class_names(tmp_path):
    r = recipe("PascalVOC-Detection/faster_rcnn_R_50_C4")
    path = tmp_path / PurePath(r.url).name
    torch.save(TENSORS, path)
    summary = summarize_weights(path)
    assert summary.model == "GeneralizedRCNN" and summary.overrides == r.overrides
    assert summary.num_classes == 20 and summary.class_names[0] == "aeroplane"


def test_a_checkpoint(tiny_checkpoint):
    summary = summarize_weights(tiny_checkpoint)
    assert summary.format == "hydet checkpoint" and summary.model == "RetinaNet" and summary.num_classes == 3
