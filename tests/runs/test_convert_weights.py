"""Weights from elsewhere as checkpoints."""

import pytest
import torch

import hydet
from hydet.config import ConfigError
from hydet.engine import load_checkpoint
from hydet.runs.convert_weights import convert_weights
from hydet.runs.open_weights import open_detector

OVERRIDES = ["model=retinanet", "backbone=r18_slim", "data.class_names=[cat,dog]"]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.save(hydet.instantiate(hydet.compose(*OVERRIDES).model).state_dict(), path)
    return path


def test_a_converted_file_is_a_checkpoint(file, tmp_path):
    checkpoint, report = convert_weights(file, tmp_path / "out", overrides=OVERRIDES)
    assert checkpoint.class_names == ("cat", "dog") and checkpoint.metadata["source"] == str(file)
    assert not (report.missing or report.unexpected or report.mismatched)
    detector = open_detector(tmp_path / "out", device="cpu")
    weights = torch.load(file, weights_only=True)
    assert all(torch.equal(value, weights[name]) for name, value in detector.model.state_dict().items())
    assert detector.config.num_classes == 2 and detector.metadata.thing_classes == ("cat", "dog")
    assert load_checkpoint(tmp_path / "out").step == 0


def test_an_existing_folder_is_not_replaced(file, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(ConfigError, match="out exists already"):
        convert_weights(file, tmp_path / "out", overrides=OVERRIDES)


def test_a_checkpoint_needs_no_conversion(tiny_checkpoint, tmp_path):
    with pytest.raises(ConfigError, match="a checkpoint of hydet needs no conversion"):
        convert_weights(tiny_checkpoint, tmp_path / "out")


def test_weights_of_another_model_leave_nothing_behind(file, tmp_path):
    with pytest.raises(ValueError, match="does not fit the model"):
        convert_weights(file, tmp_path / "out", overrides=["model=fcos", *OVERRIDES[1:]])
    assert list(tmp_path.iterdir()) == []
