"""Malformed values in a training state that can be read are refused with the names of the file and the key."""

import copy

import pytest
import torch

from hydet.data import DataError
from hydet.engine import load_checkpoint
from hydet.engine.callbacks import Checkpoints
from hydet.engine.checkpoint_folder import STATE
from hydet.engine.training_state_values import check_like


@pytest.fixture
def finished_run(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    tiny.build_trainer(folder, max_steps=2, callbacks=[Checkpoints(every=2)]).fit()
    return load_checkpoint(folder)


def put(state, keys, value):
    *path, last = keys
    for key in path:
        state = state[key]
    if value is KeyError:
        del state[last]
    else:
        state[last] = value


MALFORMED = [
    (["step"], KeyError, "step is missing"),
    (["step"], "x", "step must be a number of steps"),
    (["step"], -1, "step must be a number of steps"),
    (["metrics"], [1], "metrics must be names with numbers"),
    (["random"], {}, "random must be a list"),
    (["random", 0], 3, r"random\[0\] must be a mapping"),
    (["random", 0, "torch"], torch.zeros(7), r"random\[0\]\[torch\] cannot be restored"),
    (["random", 0, "torch"], KeyError, r"random\[0\]\[torch\] cannot be restored"),
    (["random", 0, "python"], (3, (1, 2), None), r"random\[0\]\[python\] cannot be restored"),
    (["random", 0, "numpy"], ["MT19937", torch.zeros(3), 0, 0, 0.0], r"random\[0\]\[numpy\] cannot be restored"),
    (["optimizer"], KeyError, "optimizer is missing"),
    (["optimizer"], {}, "optimizer must be the state of an optimizer"),
    (["optimizer", "state"], [1], "optimizer must be the state of an optimizer"),
    (["optimizer", "param_groups"], {}, "optimizer must be the state of an optimizer"),
    (["optimizer", "state", 0, "exp_avg"], torch.zeros(5), r"optimizer, .*: exp_avg must be a tensor of shape"),
    (["optimizer", "state", 0, "exp_avg"], KeyError, r"optimizer, .*: exp_avg is missing"),
    (["optimizer", "state", 0, "step"], "x", r"optimizer, .*: step must be a number"),
    (["scheduler"], [], "scheduler must be a mapping"),
    (["scheduler", "last_epoch"], "x", r"scheduler\['last_epoch'\] must be a number"),
    (["scheduler", "base_lrs"], 3, r"scheduler\['base_lrs'\] must be a list"),
    (["scaler"], None, "scaler must be a mapping"),
    (["loader"], 3, "loader must be a mapping"),
    (["loader", "taken"], "x", r"loader\['taken'\] must be a number"),
    (["loader", "taken"], KeyError, "loader cannot be restored"),
    (["modules"], {"": 3}, "modules must be a mapping of mappings"),
    (["callbacks"], {"a": []}, "callbacks must be a mapping of mappings"),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "value", "message"), MALFORMED, ids=range(len(MALFORMED)))
def test_malformed_values_are_named(tiny, finished_run, tmp_path, monkeypatch, keys, value, message):
    state = copy.deepcopy(finished_run.training_state())
    put(state, keys, value)
    monkeypatch.setattr(type(finished_run), "training_state", lambda self: state)
    trainer = tiny.build_trainer(tmp_path, max_steps=3)
    with pytest.raises(DataError, match=message) as error:
        trainer.fit(resume=finished_run.path)
    assert str(finished_run.path / STATE) in str(error.value)


def test_values_are_compared_by_type():
    check_like({"a": [1.5, 2], "b": None, "d": 1}, {"a": [3], "b": "x", "c": 2}, "file")
    check_like(torch.ones(()), 0.1, "file")
    for value, template in (({"a": "x"}, {"a": 1}), ([1, "x"], [1]), (1, "x"), (torch.ones(3), 0.1)):
        with pytest.raises(DataError, match=r"^file"):
            check_like(value, template, "file")
