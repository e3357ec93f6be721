"""The notebook's code still runs; ``nox -s notebook`` runs it in full, with the quality that it promises."""

import json
import sys
import types
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "build_a_detector.ipynb"
CELLS = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
CODE = [c for c in CELLS if c["cell_type"] == "code"]


def is_check_of_quality(cell):
    return "quality" in cell["metadata"].get("tags", ())


def outputs(kind):
    return [o["data"][kind] for c in CODE for o in c["outputs"] if kind in o.get("data", {})]


@pytest.fixture
def without_ipython(monkeypatch):
    """Replace the only name that the notebook imports from IPython, which is not installed for tests."""
    display = types.ModuleType("IPython.display")
    display.Image = lambda data, format: data
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)


def test_every_cell_runs_with_few_steps(without_ipython, capsys):
    names = {"__name__": "notebook"}
    for i, cell in enumerate(CODE):
        if not is_check_of_quality(cell):
            source = "".join(cell["source"]).replace("STEPS = 250", "STEPS = 6")
            exec(compile(source, f"cell {i}", "exec"), names)
    assert names["STEPS"] == 6
    first, last = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")][:3:2]
    assert float(last.split()[3]) < float(first.split()[3])
    assert {type(names[m].backbone.bottom_up).__name__ for m in ("model", "transformer")} == {
        "ResNet",
        "SwinTransformer",
    }


def test_stored_outputs_come_from_one_complete_run():
    assert [c["execution_count"] for c in CODE] == list(range(1, len(CODE) + 1))
    assert not any(o["output_type"] == "error" for c in CODE for o in c["outputs"])
    assert len(outputs("image/jpeg")) == 5
    assert NOTEBOOK.stat().st_size < 500_000


def test_both_detectors_are_checked_and_every_step_is_explained():
    assert sum(map(is_check_of_quality, CODE)) == 2
    assert all("assert" in "".join(c["source"]) for c in CODE if is_check_of_quality(c))
    assert sum(c["cell_type"] == "markdown" for c in CELLS) >= 12
    assert max(len(c["source"]) for c in CODE) <= 45
