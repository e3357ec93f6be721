"""The commands of docs/weights.md are valid; nothing is downloaded or built."""

import re
import shlex
from pathlib import Path

import pytest

import hydet
from hydet.cli.weights import build_parser
from hydet.interop.locations import is_remote

PAGE = (Path(__file__).parents[2] / "docs" / "weights.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```bash\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
LINES = [shlex.split(line, comments=True) for block in BLOCKS for line in block.splitlines() if line.strip()]


@pytest.mark.parametrize("words", LINES, ids=" ".join)
def test_a_documented_command_is_valid(words):
    assert words[:2] == ["python", "-m"]
    command, arguments = words[2].removeprefix("src."), words[3:]
    if command == "weights":
        options = build_parser().parse_args(arguments)
        hydet.compose(*getattr(options, "overrides", ()))
        return
    config = hydet.compose(*arguments, config_name=command)
    source = config.get("checkpoint")
    assert source is None or str(source).startswith("runs/") or is_remote(source)
