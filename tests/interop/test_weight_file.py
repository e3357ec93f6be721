"""Weight files of the reference zoo, Caffe2, pycls and torch."""

import argparse
import collections
import pathlib
import pickle
import types

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hydet.data import DataError
from hydet.interop import read_foreign

STATE = {
    "backbone.stem.conv1.weight": torch.arange(6.0).reshape(2, 3),
    "backbone.stem.conv1.bias": torch.ones(2),
}
ARRAYS = {name: tensor.numpy() for name, tensor in STATE.items()}


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a pickle or a file of torch, and returns its path."""

    def write(name, value, protocol=2):
        path = tmp_path / name
        if name.endswith(".pkl"):
            path.write_bytes(pickle.dumps(value, protocol=protocol))
        elif name.endswith(".safetensors"):
            save_file(value, path)
        else:
            torch.save(value, path)
        return path

    return write


def assert_same(weights, state=STATE):
    assert weights.tensors.keys() == state.keys()
    assert all(torch.equal(weights.tensors[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_trained_models_of_the_zoo(write, protocol):
    trained = {
        "model": collections.OrderedDict(ARRAYS),
        "__author__": "Detectron2 Model Zoo",
        "iteration": 269999,
        "optimizer": {
            "state": {0: {"momentum_buffer": ARRAYS["backbone.stem.conv1.bias"]}},
            "lr": np.float64(0.1),
        },
    }
    weights = read_foreign(write("model_final.pkl", trained, protocol))
    assert_same(weights)
    assert (weights.format, weights.by_suffix, weights.skipped) == ("detectron2", False, {})
    for tensor in weights.tensors.values():
        tensor += 1  # the memory is writable


def test_models_that_match_by_suffix(write):
    converted = {"model": ARRAYS, "__author__": "third_party", "matching_heuristics": True}
    assert read_foreign(write("r50.pkl", converted)).by_suffix
    assert not read_foreign(write("r50.pkl", converted), by_suffix=False).by_suffix
    tensors = {"model": STATE, "matching_heuristics": True}
    assert read_foreign(write("r50.pth", tensors)).by_suffix


def test_strings_of_python_2(tmp_path):
    """Python 2 writes names and arrays as SHORT_BINSTRING, which newer versions cannot write."""
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR(K\x01K\x02\x85cnumpy\ndtype\n(U\x02f4"
    array += b"K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x08\x00\x00\x80?\x00\x00\x00@tb"
    path = tmp_path / "R-50.pkl"
    path.write_bytes(b"\x80\x02}U\x05blobs}(U\x07conv1_w" + array + b"U\x10conv1_w_momentum" + array + b"us.")
    weights = read_foreign(path)
    assert (weights.format, weights.by_suffix) == ("caffe2", True)
    assert weights.tensors["stem.conv1.weight"].tolist() == [1, 2]
    assert list(weights.skipped) == ["conv1_w_momentum"]


def test_caffe2_at_the_top_level_or_below_blobs(write):
    blobs = {"conv1_w": ARRAYS["backbone.stem.conv1.weight"], "res2_0_branch1_w": np.zeros(3, dtype=">f4")}
    for value in (blobs, {"blobs": blobs, "cfg": "MODEL:\n  TYPE: generalized_rcnn"}):
        weights = read_foreign(write("backbone.pkl", value))
        assert list(weights.tensors) == ["stem.conv1.weight", "res2.0.shortcut.weight"]
        assert weights.renamed["stem.conv1.weight"] == "conv1_w"


def test_pycls(write):
    state = {"stem.conv.weight": torch.ones(2), "stem.bn.num_batches_tracked": torch.tensor(3)}
    weights = read_foreign(write("RegNetX-4GF.pyth", {"epoch": 99, "model_state": state, "cfg": "TEXT"}))
    assert list(weights.tensors) == ["stem.conv.weight"]
    assert (weights.format, weights.by_suffix) == ("pycls", True)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "wrong.safetensors", "wrong.pth", "wrong.pkl"])
def test_state_dicts_of_torch_and_safetensors_are_recognized_by_their_content(write, name, tmp_path):
    written = {"wrong.safetensors": "w.pth", "wrong.pth": "w.safetensors", "wrong.pkl": "w.pth"}.get(
        name, name
    )
    path = write(written, STATE).rename(tmp_path / name)
    weights = read_foreign(path)
    assert_same(weights)
    assert (weights.format, weights.by_suffix, weights.path) == ("state dict", False, path)


def test_a_pickle_of_arrays_alone(write):
    weights = read_foreign(write("arrays.pkl", ARRAYS))
    assert_same(weights)
    assert (weights.format, weights.by_suffix) == ("state dict", True)


def test_values_that_are_no_tensors_are_listed(write):
    weights = read_foreign(write("model.pkl", {"model": {**ARRAYS, "step": 3}, "__author__": "me"}))
    assert_same(weights)
    assert weights.skipped == {"step": "a int, not a tensor"}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"model": {}, "__author__": "x"}, "holds no state dict"),
        ([ARRAYS], "holds no state dict, but a list"),
        ({"model": {"a": np.zeros(2, dtype="O")}}, "arrays must be numeric"),
        ({"model": {"a": {1, 2}}}, "set"),
    ],
)
def test_files_without_weights_are_named(write, value, reason):
    with pytest.raises(DataError, match=rf"model\.pkl.*{reason}"):
        read_foreign(write("model.pkl", value))


def test_names_of_one_array_share_its_memory(write):
    array = np.ones(5)
    tensors = read_foreign(
        write("model.pkl", {"model": {"a": array, "b": array}, "__author__": "me"})
    ).tensors
    assert tensors["a"] is tensors["b"]


def test_a_file_that_a_converter_cannot_read_is_named(write, monkeypatch):
    broken = types.SimpleNamespace(
        fits=lambda tensors: True, convert=lambda path, tensors, meta: tensors["gone"]
    )
    monkeypatch.setattr("hydet.interop.weight_file.CONVERTERS", (broken,))
    with pytest.raises(DataError, match=r"w\.pth has names of another library, .*KeyError: 'gone'"):
        read_foreign(write("w.pth", STATE))


def test_missing_and_empty_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.pkl: no such file"):
        read_foreign(tmp_path / "gone.pkl")
    for content, description in (
        (b"", "an empty file"),
        (b"<html></html>", "a web page"),
        (bytes(99), "zero"),
    ):
        (tmp_path / "w.pkl").write_bytes(content)
        with pytest.raises(DataError, match=rf"w\.pkl is .*{description}"):
            read_foreign(tmp_path / "w.pkl")


def test_values_of_common_classes_beside_the_weights_are_dropped(write):
    beside = {
        "args": argparse.Namespace(lr=0.1, path=pathlib.PurePosixPath("runs") / "a"),
        "best": np.float64(0.5),
        "history": np.arange(3),
        "folder": pathlib.PureWindowsPath("a"),
    }
    for legacy in (False, True):
        path = write("w.pth", {"state_dict": {**STATE, "scale": np.ones(2)}, **beside})
        torch.save(
            {"state_dict": {**STATE, "scale": np.ones(2)}, **beside},
            path,
            _use_new_zipfile_serialization=not legacy,
        )
        assert_same(read_foreign(path), {**STATE, "scale": torch.ones(2, dtype=torch.float64)})
