import pytest

from hydet.data import DataError
from hydet.data.coco.json_values import are_finite, is_finite, is_int, read_json, shorten


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
