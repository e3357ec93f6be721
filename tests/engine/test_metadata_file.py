"""Reading ``metadata.json``; hostile files are in tests/runs/test_hostile_checkpoints.py."""

import json

import pytest

from hydet.engine.metadata_file import FORMAT, FORMAT_VERSION, read_metadata_file

VALID = {"format": FORMAT, "format_version": FORMAT_VERSION, "step": 3, "files": {"model.safetensors": 10}}


def read(tmp_path, **changes):
    file = tmp_path / "metadata.json"
    file.write_text(json.dumps({**VALID, **changes}), encoding="utf-8")
    return read_metadata_file(file)


def test_valid_content_comes_back(tmp_path):
    content = read(tmp_path, metrics={"box/AP": None, "x": 0.5}, dataset={"thing_classes": ["ü"]}, more=[1])
    assert content == {
        **VALID,
        "metrics": {"box/AP": None, "x": 0.5},
        "dataset": {"thing_classes": ["ü"]},
        "more": [1],
    }


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("step", "3"),
        ("step", 2.5),
        ("files", {"../x": 1}),
        ("metrics", []),
        ("dataset", {}),
        ("saved_at", "now"),
    ],
)
def test_a_field_of_another_type_is_named(key, value, tmp_path):
    with pytest.raises(ValueError, match=rf"metadata\.json is damaged: {key} must be"):
        read(tmp_path, **{key: value})


def test_a_newer_format_is_recognized_before_its_fields(tmp_path):
    with pytest.raises(ValueError, match="newer hydet"):
        read(tmp_path, format_version=FORMAT_VERSION + 1, step="another type")


def test_another_file_is_recognized(tmp_path):
    with pytest.raises(ValueError, match="does not belong to a hydet checkpoint"):
        read(tmp_path, format="something")
