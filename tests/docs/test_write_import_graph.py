"""The import graph of ``docs/architecture.md`` is that of the code, and agrees with the layering contracts."""

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(load_script):
    return load_script("write_import_graph")


def test_the_graph_on_the_page_is_that_of_the_code(script):
    assert not script.outdated(), "run `python docs/write_import_graph.py`"


def test_a_changed_graph_is_noticed(script, tmp_path):
    page = tmp_path / "architecture.md"
    page.write_text(
        script.PAGE.read_text(encoding="utf-8").replace("layers --> modeling", "modeling --> layers"),
        encoding="utf-8",
    )
    script.PAGE = page
    assert script.outdated()
    script.write()
    assert not script.outdated()


def test_imports_follow_the_layers_of_the_contract(script):
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    level = {
        name.strip(): i
        for i, layer in enumerate(reversed(layers))
        for name in layer.replace("|", ":").split(":")
    }
    imports = script.imported_packages()
    assert set(imports) - {"config"} == set(level)
    for package, imported in imports.items():
        for name in imported - {"config"}:
            assert level[name] <= level[package], f"{package} imports {name}"


def test_a_cycle_is_an_error(script):
    with pytest.raises(ValueError, match="cycle: data, layers"):
        script._reduced({"data": {"layers"}, "layers": {"data"}, "engine": {"data"}})


def test_an_arrow_that_follows_from_others_is_left_out(script):
    imports = {"structures": set(), "layers": {"structures"}, "modeling": {"layers", "structures"}}
    assert script._reduced(imports) == [("structures", "layers"), ("layers", "modeling")]
