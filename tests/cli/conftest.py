"""Changes to JSON files; the fixtures that tests of hydet.runs share are in tests/conftest.py."""

import json
from pathlib import Path

import pytest


@pytest.fixture
def edit_json():
    """Return a function that changes a JSON file in place by a function."""

    def edit(file, change):
        content = json.loads(Path(file).read_text(encoding="utf-8"))
        change(content)
        Path(file).write_text(json.dumps(content), encoding="utf-8")

    return edit
