import collections
import io
import pickle
import struct

import pytest

from hydet.files.pickle_reader import PickleReader

VALUES = {
    "numbers": [1, -1, 300, 2**70, 1.5, True, False, None],
    "text": ("a", "ä" * 300, b"b" * 300, ""),
    "nested": ({1: [2, (3, 4, 5, 6)], (7, 8): {}}, [[]], (), (1,)),
}


class Collector(PickleReader):
    """Calls nothing: returns the names with the arguments."""

    def find_class(self, module, name):
        return lambda *arguments: (f"{module}.{name}", *arguments)

    def persistent_load(self, pid):
        return {"pid": pid}


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_plain_values_are_those_of_pickle(protocol):
    result = PickleReader(io.BytesIO(pickle.dumps([VALUES, VALUES], protocol=protocol))).load()
    assert result == [VALUES, VALUES] and result[0] is result[1]


def test_sets_and_mutable_bytes():
    values = [{1, 2}, frozenset([3, (4, 5)]), bytearray(b"c")]
    assert PickleReader(io.BytesIO(pickle.dumps(values, protocol=5))).load() == values


def test_strings_of_python_2_and_old_opcodes():
    content = b"(dp0\nS'a'\np1\n(lp2\nI1\naL2L\naF3.5\nasI01\n(I4\nI5\ntp3\ns."
    assert PickleReader(io.BytesIO(content)).load() == {"a": [1, 2, 3.5], True: (4, 5)}
    assert PickleReader(io.BytesIO(b"\x80\x02U\x02\xe4\xff.")).load() == "äÿ"


def test_the_stream_is_left_behind_the_pickle():
    stream = io.BytesIO(pickle.dumps(1) + pickle.dumps([2]) + b"rest")
    assert [PickleReader(stream).load(), PickleReader(stream).load(), stream.read()] == [1, [2], b"rest"]


def test_names_and_identifiers_are_left_to_the_subclass():
    content = pickle.dumps(collections.OrderedDict(a=1), protocol=2)
    with pytest.raises(pickle.UnpicklingError, match=r"collections\.OrderedDict, which was not run"):
        PickleReader(io.BytesIO(content)).load()
    assert Collector(io.BytesIO(b"\x80\x02cos\nsystem\nU\x01x\x85R.")).load() == ("os.system", "x")
    assert Collector(io.BytesIO(b"\x80\x04\x8c\x01a\x8c\x03b.c\x93K\x01\x85\x81.")).load() == ("a.b.c", 1)
    assert Collector(io.BytesIO(b"\x80\x02K\x01Q.")).load() == {"pid": 1}
    assert Collector(io.BytesIO(b"Pabc\n.")).load() == {"pid": "abc"}


def nested_tuples(depth):
    """Return opcodes of a tuple that takes 2**depth steps to hash."""
    return b")" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(depth))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x80\x02}" + nested_tuples(60) + b"K\x01s.", "a key has more than 1000 items"),
        (b"\x80\x02}(" + nested_tuples(60) + b"K\x01u.", "a key has more than 1000 items"),
        (b"\x80\x02(" + nested_tuples(60) + b"K\x01d.", "a key has more than 1000 items"),
        (b"\x80\x04(" + nested_tuples(60) + b"\x91.", "a key has more than 1000 items"),
        (b"\x80\x04\x8f(" + nested_tuples(60) + b"\x90.", "a key has more than 1000 items"),
        (b"\x80\x02}r\xff\xff\xff\x7f.", "stores object number 2147483647"),
        (b"\x80\x02K\x01)R.", "it calls a value"),
        (b"\x80\x02cos\nsystem\nK\x01R.", "it calls a value"),
        (b"\x80\x02cos\nsystem\n}b.", "it changes a function"),
        (b"\x80\x02K\x01}b.", "it changes a int"),
        (b"\x80\x02)K\x01a.", "adds items to a tuple, not a list"),
        (b"\x80\x02]K\x01K\x02s.", "adds items to a list, not a dict"),
        (b"\x80\x02K\x01t.", "a container has no start"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"\x80\x05\x97.", "NEXT_BUFFER"),
        (b"(ios\nsystem\n.", "INST"),
        (b"\x80\x04cos\nsystem\n)}\x92.", "NEWOBJ_EX"),
        (b"\x80\x04K\x01K\x02\x93.", "a name is not text"),
        (b"\x80\x02c" + b"a" * 500 + b"\nb\n.", "a name has 501 characters"),
        (b"\x80\x05\x8e" + struct.pack("<Q", 2**60) + b"abc.", "expected 1152921504606846976 bytes"),
    ],
)
def test_what_a_plain_value_never_needs_is_refused(content, reason):
    with pytest.raises((pickle.UnpicklingError, ValueError), match=reason):
        Collector(io.BytesIO(content)).load()


@pytest.mark.parametrize(
    "content", [b"", b".", b"\x80\x02.", b"\x80\x020.", b"\x80\x022.", b"\x80\x02h\x00.", b"abc"]
)
def test_broken_pickles_raise(content):
    with pytest.raises((ValueError, LookupError, pickle.UnpicklingError)):
        PickleReader(io.BytesIO(content)).load()


def test_nested_tuples_are_fine_as_values():
    assert len(PickleReader(io.BytesIO(b"\x80\x02" + nested_tuples(60) + b".")).load()) == 2
