import os
from itertools import islice

import pytest

from hydet.data import DataError
from hydet.data.coco.json_values import (
    are_finite,
    is_finite,
    is_int,
    read_json,
    shorten,
    to_int,
    to_number,
    unused_ids,
)


def test_type_checks_of_numbers():
    assert is_int(3) and not is_int(True) and not is_int(3.0) and not is_int("3")
    assert is_finite(2.5) and not is_finite(float("inf")) and not is_finite("2")
    assert are_finite([1, 2.5]) and are_finite([])
    for values in (
        [1, True],
        [1, None],
        [1, float("nan")],
        [1e308, 1e308],
        [1, 10**400, 0.5],
        "12",
        None,
        {},
    ):
        assert not are_finite(values)


def test_shorten_limits_the_length():
    assert shorten([1, 2]) == "[1, 2]"
    assert len(shorten("x" * 1000)) == 60 and shorten("x" * 1000).endswith("...")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00"])
def test_broken_json_is_named_in_one_line(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.json: is not JSON") as error:
        read_json(path)
    assert "\n" not in str(error.value)


def test_missing_json_is_named(tmp_path):
    with pytest.raises(DataError, match=r"a\.json: no such file"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\0\0\0\0", "only spaces or null bytes"),
        (b'{"images": [{"file_name": "a.p', "may be cut off"),
        (b'{"images": [1, 2', "may be cut off"),
        (
            b'{"file_name": "caf\xe9.jpg"}',
            r"byte 0xe9 at position 18, after '.*caf', is not UTF-8; save the file as",
        ),
        (b"[" * 200_000, "nested too deeply"),
        (b"[" + b"9" * 5000 + b"]", "a number of thousands of digits"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer; .* 'git lfs pull'"),
        (b"\n<!DOCTYPE html>", "HTML"),
        (b"\x1f\x8b\x08\0", "gzip archive"),
        (b"PK\x03\x04", "zip archive"),
        (b"\x89PNG\r\n", "PNG image"),
        (b"{'a': 1}", r"line 1 column 2 \(char 1\), at \"'a': 1}\""),
    ],
)
def test_cause_of_broken_json(tmp_path, content, message):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read_json(path)
    assert "a.json: is " in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32-be"])
def test_encodings(tmp_path, encoding):
    path = tmp_path / "a.json"
    path.write_bytes('{"name": "café 汽"}'.encode(encoding))
    assert read_json(path) == {"name": "café 汽"}


def test_other_kinds_of_files_are_refused(tmp_path):
    with pytest.raises(DataError, match="is a folder, not a JSON file"):
        read_json(tmp_path)
    with pytest.raises(DataError, match=r"a\\x00b: is not a path"):
        read_json("a\0b")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_named_pipes_do_not_hang(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(DataError, match="is not a regular file"):
        read_json(tmp_path / "a.json")


def test_integers_and_numbers_in_other_forms():
    assert [to_int(v) for v in (7, 7.0, "7", " 007 ", "7.0", "-3", -(2**63), 2**63 - 1)] == [
        7, 7, 7, 7, 7, -3, -(2**63), 2**63 - 1,
    ]  # fmt: skip
    for value in (
        True,
        None,
        7.5,
        "7.5",
        "x",
        "",
        "9" * 30,
        2**63,
        float("nan"),
        float("inf"),
        1e300,
        [7],
        {},
    ):
        assert to_int(value) is None
    assert [to_number(v) for v in (7, 7.5, "7.5", "1e3", -2)] == [7, 7.5, 7.5, 1000, -2]
    for value in (True, None, "x", "1_000", "nan", "inf", float("nan"), 10**400, [7], {}):
        assert to_number(value) is None


def test_unused_ids():
    assert list(islice(unused_ids([3, 5]), 2)) == [6, 7]
    assert list(islice(unused_ids([]), 2)) == [1, 2]
    assert list(islice(unused_ids([-5]), 2)) == [1, 2]
    assert list(islice(unused_ids([2**63 - 1, 2]), 3)) == [1, 3, 4]


def test_shorten_takes_any_value():
    assert shorten(10**5000) == "an integer of 16610 bits"
    assert shorten([10**5000]) == "a list"
