"""The resolved configs below ``docs/configs`` are those of the tree."""

from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def test_resolved_configs_are_up_to_date(load_script):
    outdated = load_script("write_configs").outdated_files()
    assert outdated == [], f"run `python docs/write_configs.py`; out of date: {outdated}"


def test_every_model_option_has_a_resolved_config_without_interpolations():
    models = {file.name for file in (ROOT / "conf" / "model").glob("*.yaml")}
    files = {
        file.name: file.read_text(encoding="utf-8") for file in (ROOT / "docs" / "configs").glob("*.yaml")
    }
    assert set(files) == {*models, "train.yaml"}
    for text in files.values():
        assert "${" not in text and isinstance(yaml.safe_load(text), dict)
