"""The Python blocks of the page about speed run from top to bottom."""

import re
from pathlib import Path

PATH = Path(__file__).parents[2] / "docs" / "speed.md"


def test_python_runs_from_top_to_bottom():
    page = PATH.read_text(encoding="utf-8")
    names = {"__name__": "page"}
    for block in re.findall(r"^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL):
        line = page[: page.index(block)].count("\n")
        exec(compile("\n" * line + block, str(PATH), "exec"), names)
    assert names["boxes"].shape == (names["count"], 4) and names["scores"].shape == (names["count"],)
    assert names["trained"].training
