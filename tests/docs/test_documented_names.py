"""The names of hydet and the paths that the documentation mentions exist."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "examples" / "own_parts" / "README.md",
    ROOT / "tests" / "parity" / "README.md",
]
NAME = re.compile(r"(?<![\w/.-])hydet(?:\.[A-Za-z_]\w*)+")
PATH = re.compile(r"`((?:src|conf|kernels|tests|docs|examples|benchmarks)/[\w./-]*)`")


def resolve(name):
    """Import the longest module of a dotted name, then look up its attributes."""
    parts = name.split(".")
    for i in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:i]))
        except ModuleNotFoundError:
            continue
        for part in parts[i:]:
            value = getattr(value, part)
        return value
    raise AssertionError(name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_dotted_names_resolve(page):
    for name in sorted(set(NAME.findall(page.read_text(encoding="utf-8")))):
        resolve(name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_paths_exist(page):
    text = page.read_text(encoding="utf-8")
    missing = [path for path in PATH.findall(text) if not (ROOT / path).exists()]
    assert not missing
