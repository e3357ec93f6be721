"""Stored configs after the check; hostile ones are in test_hostile_checkpoints.py."""

import pytest

from hydet.config import ConfigError
from hydet.runs.stored_config import checked_config

CONFIG = {"model": {"_target_": "hydet.modeling.FPN", "norm": ""}, "augment": {"test": {}}}


def test_changes_are_merged_before_the_check():
    changed = checked_config(CONFIG, name="x", changes={"model": {"norm": "GN", "deep": {"a": 1}}})
    assert changed["model"] == {"_target_": "hydet.modeling.FPN", "norm": "GN", "deep": {"a": 1}}
    assert CONFIG["model"]["norm"] == ""
    with pytest.raises(ConfigError, match=r"^x: model: _target_ os.system is outside"):
        checked_config(CONFIG, name="x", changes={"model": {"_target_": "os.system"}})


def test_strings_are_not_interpreted():
    config = checked_config({**CONFIG, "data": {"class_names": ["${price}", "???"]}}, name="x")
    assert config["data"]["class_names"] == ["${price}", "???"]


def test_allowed_packages(tmp_path, monkeypatch):
    (tmp_path / "stored_parts.py").write_text("class Part: pass\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    config = {"model": {"_target_": "stored_parts.Part"}}
    with pytest.raises(ConfigError, match=r"allow=\[stored_parts\]"):
        checked_config(config, name="x")
    assert checked_config(config, name="x", allow=["stored_parts"]) == config
