import pickle

import numpy as np
import pytest
import torch

from hydet.data import DataError, Proposals
from hydet.data.proposals.array_pickle import read_array_pickle


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_and_arrays_round_trip(tmp_path, protocol):
    value = {
        "numbers": [1, 2.5, True, None],
        "strings": ("text", b"bytes", b""),
        "scalar": np.float32(1.5),
        "arrays": [np.arange(6, dtype=">i4").reshape(2, 3), np.asfortranarray(np.ones((2, 3))), np.zeros(0)],
    }
    path = tmp_path / "values.pkl"
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    loaded = read_array_pickle(path)
    assert loaded["numbers"] == value["numbers"] and loaded["strings"][0] == "text"
    assert loaded["scalar"] == 1.5
    for actual, expected in zip(loaded["arrays"], value["arrays"], strict=True):
        np.testing.assert_array_equal(actual, expected)


class Harmful:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize("protocol", range(6))
def test_pickle_cannot_run_code(tmp_path, protocol):
    trace = tmp_path / "trace"
    path = tmp_path / "bad.pkl"
    for call, arguments in ((open, (str(trace), "w")), (eval, (f"open({str(trace)!r}, 'w')",))):
        path.write_bytes(pickle.dumps([1, Harmful(call, *arguments)], protocol=protocol))
        with pytest.raises(DataError, match=r"bad\.pkl.*was not run"):
            read_array_pickle(path)
        assert not trace.exists()


@pytest.mark.parametrize(
    "value",
    [
        {1, 2},
        np.array([[None] * 4] * 2),
        np.array(["a"] * 4),
        Proposals(boxes=torch.zeros(0, 4), objectness_logits=torch.zeros(0)),
    ],
)
def test_other_values_are_refused(tmp_path, value):
    path = tmp_path / "values.pkl"
    path.write_bytes(pickle.dumps({"value": value}))
    with pytest.raises(DataError, match=r"values\.pkl"):
        read_array_pickle(path)


@pytest.mark.parametrize("content", [b"", b"text", pickle.dumps(list(range(50)))[:-10]])
def test_broken_pickles_are_named(tmp_path, content):
    path = tmp_path / "values.pkl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"values\.pkl: is not a pickle"):
        read_array_pickle(path)
    with pytest.raises(DataError, match=r"missing\.pkl: cannot be read"):
        read_array_pickle(tmp_path / "missing.pkl")
