"""A checkpoint as a detector."""

import pytest
import torch

from hydet.config import ConfigError
from hydet.runs.open_checkpoint import faults_of, open_checkpoint


def test_the_model_has_the_weights_and_the_metadata(tiny_checkpoint):
    detector = open_checkpoint(tiny_checkpoint, device="cpu")
    weights = detector.checkpoint.weights()
    state = detector.model.state_dict()
    assert weights.keys() == state.keys()
    assert all(torch.equal(weights[name], state[name]) for name in weights)
    assert not detector.model.training
    assert detector.metadata.num_classes == 3
    assert detector.config.num_classes == 3


def test_changes_apply_to_the_model(tiny_checkpoint):
    detector = open_checkpoint(tiny_checkpoint, device="cpu", changes={"model": {"test_score_thresh": 0.75}})
    assert detector.model.test_score_thresh == 0.75
    assert detector.config.model.test_score_thresh == 0.75


def test_errors_of_its_parts_name_the_checkpoint(tiny_checkpoint):
    checkpoint = open_checkpoint(tiny_checkpoint, device="cpu").checkpoint
    for raised in (ValueError("x"), KeyError("x"), RuntimeError("x")):
        with pytest.raises(ConfigError, match=r"config\.yaml: .*x"), faults_of(checkpoint):
            raise raised
    with pytest.raises(FileNotFoundError), faults_of(checkpoint):
        raise FileNotFoundError("y")
