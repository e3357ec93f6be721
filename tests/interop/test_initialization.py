"""Files of other libraries initialize models, and the report says what was loaded, by module."""

import pickle
import re

import numpy as np
import pytest
import torch

import hydet
from hydet.engine import init_from, load_weights, read_weights


@pytest.fixture(scope="module")
def make_model():
    """Return a function that builds a small Mask R-CNN; its random numbers differ at each call."""
    config = hydet.compose("model=mask_rcnn_fpn", "backbone=r18_slim")
    return lambda: hydet.instantiate(config.model)


def weights_of(model):
    return {n: v for n, v in model.state_dict().items() if not n.endswith("num_batches_tracked")}


def dump(path, value):
    path.write_bytes(pickle.dumps(value, protocol=2))
    return path


def to_arrays(state):
    return {name: tensor.numpy() for name, tensor in state.items()}


def assert_equal(model, other):
    state = other.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def caffe2_blobs(model, caffe2_name):
    """Return the weights of a model as a file of Caffe2 holds them."""
    blobs = {}
    for name, value in weights_of(model).items():
        if name.endswith("box_predictor.cls_score.weight") or name.endswith("box_predictor.cls_score.bias"):
            value = torch.cat([value[-1:], value[:-1]])
        more = 4 if ".bbox_pred." in name else 1 if "mask_head.predictor" in name else 0
        value = torch.cat([torch.full((more, *value.shape[1:]), 9.0), value]) if more else value
        blobs[caffe2_name(name)] = value.numpy()
    return blobs


def test_a_trained_model_of_the_zoo_loads_completely(make_model, tmp_path):
    source, model = make_model(), make_model()
    content = {
        "model": to_arrays(weights_of(source)),
        "__author__": "zoo",
        "iteration": 3,
        "optimizer": [np.ones(2)],
    }
    content["model"]["pixel_mean"] = source.pixel_mean.numpy()
    path = dump(tmp_path / "model_final.pkl", content)
    report = load_weights(model, path)
    assert_equal(model, source)
    assert str(report) == f"loaded {len(weights_of(source))} tensors from {path} (detectron2)"
    weights, checkpoint = read_weights(path)
    assert checkpoint is None and "backbone.fpn_lateral2.weight" in weights


def test_a_detection_model_of_caffe2_loads_completely(make_model, caffe2_name, tmp_path):
    source, model = make_model(), make_model()
    path = dump(tmp_path / "model_final.pkl", {"blobs": caffe2_blobs(source, caffe2_name)})
    report = load_weights(model, path)
    assert_equal(model, source)
    assert len(report.renamed) == len(report.loaded) == len(weights_of(source))
    lines = str(report).splitlines()
    assert lines[0].endswith("model_final.pkl (caffe2)") and len(lines) == 2
    assert re.fullmatch(
        r"renamed: backbone \(\d+ tensors\), roi_heads \(\d+ tensors\), proposal_generator .*", lines[1]
    )


def test_a_backbone_of_caffe2_initializes_a_detector(make_model, caffe2_name, tmp_path):
    source, model = make_model(), make_model()
    blobs = caffe2_blobs(source.backbone.bottom_up, caffe2_name)
    blobs = {name: value for name, value in blobs.items() if not name.endswith(("_rm", "_riv"))}
    blobs |= {"fc1000_w": np.zeros((5, 2)), "fc1000_b": np.zeros(5), "conv1_w_momentum": np.zeros(2)}
    path = dump(tmp_path / "R-18.pkl", blobs)
    report = init_from(model, path)
    assert torch.equal(
        model.backbone.bottom_up.res5[0].conv1.weight, source.backbone.bottom_up.res5[0].conv1.weight
    )
    variance = model.backbone.bottom_up.res5[0].conv1.norm.running_var
    assert torch.equal(variance, torch.ones_like(variance) - 1e-5)
    text = str(report)
    assert re.search(
        r"^loaded \d+ tensors from .*R-18\.pkl \(caffe2\): backbone\.bottom_up \(\d+ tensors\)$", text, re.M
    )
    assert re.search(
        r"^not in the file: roi_heads \(\d+ tensors\), proposal_generator \(6 tensors\), backbone\.fpn_",
        text,
        re.M,
    )
    assert "only in the file: fc1000 (2 tensors)" in text
    assert "skipped (state of the optimizer): conv1_w_momentum" in text
    assert len(report.missing) > 30 and report.unexpected == ("fc1000.weight", "fc1000.bias")


def test_shapes_that_differ_are_skipped_if_names_match_by_their_ends(make_model, tmp_path):
    state = to_arrays(weights_of(make_model().backbone.bottom_up))
    state["res2.0.conv1.weight"] = np.zeros((3, 3))
    content = {"model": state, "__author__": "third_party", "matching_heuristics": True}
    report = init_from(make_model(), dump(tmp_path / "r18.pkl", content))
    assert list(report.mismatched) == ["backbone.bottom_up.res2.0.conv1.weight"]
    assert "not loaded because of their shape: backbone.bottom_up.res2.0.conv1.weight (3, 3) -> " in str(
        report
    )


def test_the_hint_matches_names_by_their_ends(make_model, tmp_path):
    source, model = make_model(), make_model()
    path = tmp_path / "backbone.pth"
    torch.save(source.backbone.bottom_up.state_dict(), path)
    with pytest.raises(ValueError, match=r"backbone\.pth: none of its"):
        init_from(model, path)
    init_from(model, f"{path}?matching_heuristics=True")
    assert_equal(model.backbone.bottom_up, source.backbone.bottom_up)


def test_a_name_that_fits_twice_changes_nothing(make_model, tmp_path):
    model = make_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    content = {"model": {"conv1.weight": np.zeros(2)}, "__author__": "x", "matching_heuristics": True}
    with pytest.raises(ValueError, match=r"w\.pkl: conv1\.weight fits two tensors of the model"):
        init_from(model, dump(tmp_path / "w.pkl", content))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_axes_of_length_one_are_added(tmp_path):
    model, path = torch.nn.Conv2d(3, 4, 1), tmp_path / "linear.pth"
    source = torch.nn.Linear(3, 4)
    torch.save(source.state_dict(), path)
    with pytest.raises(ValueError, match="does not fit"):
        load_weights(model, path)
    report = init_from(model, path)
    assert torch.equal(model.weight.flatten(1), source.weight)
    assert report.reshaped == {"weight": ((4, 3), (4, 3, 1, 1))}
    assert "reshaped: weight (4, 3) -> (4, 3, 1, 1)" in str(report)
