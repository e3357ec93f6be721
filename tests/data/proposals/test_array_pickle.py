import pickle
import tracemalloc

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


def test_object_numbers_are_checked_before_the_table_is_allocated(tmp_path):
    """LONG_BINPUT with the number 2**31 makes Python allocate 32 GB."""
    path = tmp_path / "values.pkl"
    path.write_bytes(b"\x80\x02]r\x00\x00\x00\x80.")
    with pytest.raises(DataError, match=r"values\.pkl: .* stores object number 2147483648"):
        read_array_pickle(path)


@pytest.mark.parametrize("opcode", [b"\x8e", b"\x8d", b"\x96"])  # BINBYTES8, BINUNICODE8, BYTEARRAY8
def test_lengths_are_checked_against_the_file(tmp_path, opcode):
    path = tmp_path / "values.pkl"
    path.write_bytes(b"\x80\x05" + opcode + (2**36).to_bytes(8, "little") + b"abc.")
    with pytest.raises(DataError, match=r"values\.pkl: is not a pickle"):
        read_array_pickle(path)


def test_shared_objects_are_replaced_once(tmp_path):
    value = [np.arange(3)]
    for _ in range(60):
        value = [value, value]  # 2**60 paths to the array
    path = tmp_path / "values.pkl"
    path.write_bytes(pickle.dumps(value))
    loaded = read_array_pickle(path)
    assert loaded[0] is loaded[1]


def test_arrays_that_share_their_content_may_not_exceed_the_file(tmp_path):
    content = np.zeros(5000, dtype=np.uint8).tobytes()
    state = (1, (5000,), np.dtype("u1"), False, content)

    class Array:
        def __reduce__(self):
            return np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), state

    path = tmp_path / "values.pkl"
    path.write_bytes(pickle.dumps([Array() for _ in range(3)]))
    with pytest.raises(DataError, match=r"values\.pkl: .*its arrays are larger than the file"):
        read_array_pickle(path)


@pytest.mark.parametrize("shape", [(-1,), (2, -1), ("a",), [4], None, (5,)])
def test_other_shapes_are_refused(tmp_path, shape):
    class Array:
        def __reduce__(self):
            state = (1, shape, np.dtype("u1"), False, bytes(4))
            return np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), state

    path = tmp_path / "values.pkl"
    path.write_bytes(pickle.dumps(Array()))
    with pytest.raises(DataError, match=r"values\.pkl: .*shape"):
        read_array_pickle(path)


def test_values_that_contain_themselves_are_refused(tmp_path):
    value = []
    value.append(value)
    path = tmp_path / "values.pkl"
    path.write_bytes(pickle.dumps(value))
    with pytest.raises(DataError, match="contains itself"):
        read_array_pickle(path)


def test_functions_of_the_reader_cannot_be_changed(tmp_path):
    path = tmp_path / "values.pkl"
    path.write_bytes(b"\x80\x02c_codecs\nencode\n}U\x0c__defaults__K\x01sb.")
    with pytest.raises(DataError, match="changes a function"):
        read_array_pickle(path)


def test_changed_bytes_are_named_in_one_line(tmp_path):
    """Each byte of a small file takes a few other values; the result is a value or one line with the file's name."""
    content = pickle.dumps(
        {"ids": [1, 2], "boxes": [np.zeros((2, 4)), np.ones((1, 4))], "bbox_mode": np.int64(0)}
    )
    path = tmp_path / "values.pkl"
    tracemalloc.start()
    for position in range(len(content)):
        for value in (0x00, 0x7F, 0xFF, content[position] ^ 0x10):
            path.write_bytes(content[:position] + bytes([value]) + content[position + 1 :])
            try:
                read_array_pickle(path)
            except DataError as error:
                assert "values.pkl" in str(error) and "\n" not in str(error)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000_000
