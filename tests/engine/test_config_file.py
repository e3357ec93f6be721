"""Reading ``config.yaml``; hostile files are in tests/runs/test_hostile_checkpoints.py."""

import pytest

from hydet.engine.config_file import MAX_DEPTH, MAX_VALUES, read_config_file


def read(tmp_path, text):
    file = tmp_path / "config.yaml"
    file.write_text(text, encoding="utf-8")
    return read_config_file(file)


def test_values_are_plain_and_not_interpolated(tmp_path):
    content = read(tmp_path, "a: 1e-3\nb: ${a}\nc: [null, true, ünï]\n1: x\nd: 2020-01-01\n")
    assert content == {"a": 0.001, "b": "${a}", "c": [None, True, "ünï"], 1: "x", "d": "2020-01-01"}
    assert read(tmp_path, "") == {}


def test_few_aliases_are_fine(tmp_path):
    assert read(tmp_path, "a: &x {k: [1, 2]}\nb: *x\nc: [*x, *x]\n")["c"] == [{"k": [1, 2]}] * 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "levels"),
        ("a: [" + "1," * (MAX_VALUES + 1) + "]", "values"),
        ("a: &x [*x]", "inside its own anchor"),
        ("- 1", "not a mapping"),
        ("a: !!binary aGk=", "a is a bytes"),
        ("? [1]\n: 2", "config.yaml"),
        ("a: 1\na: 2", "config.yaml"),
    ],
)
def test_limits_name_the_file(text, words, tmp_path):
    with pytest.raises(ValueError, match=r"config\.yaml is damaged") as error:
        read(tmp_path, text)
    assert words in str(error.value)


def test_anchors_count_as_often_as_they_are_used(tmp_path):
    lines = ["a0: &a0 [1]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 30))]
    with pytest.raises(ValueError, match="aliases included"):
        read(tmp_path, "\n".join(lines))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"config\.yaml is damaged: no such file"):
        read_config_file(tmp_path / "config.yaml")
