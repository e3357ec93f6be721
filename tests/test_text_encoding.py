"""Text files are read and written as UTF-8 by name, because other systems have other defaults."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("src", "kernels", "benchmarks", "docs", "tests", "conf")
FILES = sorted(
    path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if "parity" not in path.parts
)


def calls_without_encoding(text):
    """Yield the lines of calls that open text without ``encoding``."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call) or any(k.arg in ("encoding", None) for k in node.keywords):
            continue
        function = node.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        if name in ("read_text", "write_text"):
            if len(node.args) <= (name == "write_text"):
                yield node.lineno
        elif name == "open" and isinstance(function, ast.Name):
            mode = (
                node.args[1]
                if len(node.args) > 1
                else next((k.value for k in node.keywords if k.arg == "mode"), None)
            )
            if mode is None or (isinstance(mode, ast.Constant) and "b" not in mode.value):
                yield node.lineno


def test_every_text_file_is_opened_with_an_encoding():
    assert len(FILES) > 100
    missing = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in FILES
        for line in calls_without_encoding(path.read_text(encoding="utf-8"))
    ]
    assert missing == []


@pytest.mark.parametrize("call", ["path.read_text()", "path.write_text('a')", "open('a')", "open('a', 'w')"])
def test_calls_without_an_encoding_are_found(call):
    assert list(calls_without_encoding(call)) == [1]
