import enum
import json
import math
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from hydet.engine.checkpoint_values import to_json_values, to_loadable, to_separate_tensors, to_yaml


def test_loadable_values_survive_torch_load(tmp_path):
    value = {
        "numbers": [1, 2.5, None, True, "x"],
        "array": np.arange(3),
        "scalar": np.float64(0.5),
        "counter": Counter({np.int64(3): 1}),
        "ordered": OrderedDict(a=(1, torch.ones(2))),
        "path": Path("a"),
    }
    torch.save(to_loadable(value, "state"), tmp_path / "state.pt")
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)
    assert loaded["numbers"] == value["numbers"] and type(loaded["scalar"]) is float
    assert torch.equal(loaded["array"], torch.arange(3)) and loaded["counter"] == Counter({3: 1})
    assert loaded["ordered"]["a"][0] == 1 and loaded["path"] == "a"


def test_values_that_need_pickle_are_named():
    with pytest.raises(TypeError, match=r"state\['a'\]\[1\] is a builtins\.object"):
        to_loadable({"a": [1, object()]}, "state")


def test_tensors_share_no_memory():
    base = torch.arange(6.0).view(2, 3)
    weights = {"a": base, "b": base, "row": base[0], "t": base.t(), "empty": torch.zeros(0, 4)}
    separate = to_separate_tensors(weights)
    assert all(torch.equal(separate[name], weights[name]) for name in weights)
    assert all(tensor.is_contiguous() for tensor in separate.values())
    storages = [t.untyped_storage() for name, t in separate.items() if name != "empty"]
    assert len({s.data_ptr() for s in storages}) == 4


def test_json_has_null_for_values_that_it_lacks():
    values = {1: [math.nan, math.inf, np.float32(0.5), np.int64(2)], "a": ("x", None)}
    assert json.loads(json.dumps(to_json_values(values))) == {"1": [None, None, 0.5, 2], "a": ["x", None]}


def test_yaml_of_any_config():
    assert to_yaml(None) == "{}\n"
    assert to_yaml({"a": [1]}) == to_yaml(OmegaConf.create({"a": [1]})) == "a:\n- 1\n"


def test_enumerations_are_stored_as_their_values():
    """Their class could be written, but not read again."""

    class Color(enum.IntEnum):
        RED = 3

    class Name(enum.StrEnum):
        RED = "red"

    values = to_loadable({"a": Color.RED, "b": [Name.RED]}, "state")
    assert values == {"a": 3, "b": ["red"]}
    assert type(values["a"]) is int and type(values["b"][0]) is str
