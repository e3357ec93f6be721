"""Compare every stored case with the reference; see ``README.md`` for the origin of the numbers."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # cases import their framework by name

import parity  # noqa: E402

for file in sorted(HERE.glob("cases_*.py")):
    importlib.import_module(file.stem)


@pytest.mark.parametrize("name", sorted(parity.CASES))
def test_matches_reference(name):
    golden = dict(np.load(HERE / "goldens" / f"{name}.npz"))
    seed = int(golden.pop("seed|"))
    assert parity.compare(name, parity.run(name, parity.Library("hydet"), seed), golden) == []


def test_comparison_detects_wrong_numbers():
    name = "ops/boxes/pairwise_iou" if "ops/boxes/pairwise_iou" in parity.CASES else sorted(parity.CASES)[0]
    golden = dict(np.load(HERE / "goldens" / f"{name}.npz"))
    golden.pop("seed|")
    key = next(k for k, v in golden.items() if v.dtype.kind == "f" and v.size)
    wrong = golden | {key: golden[key] + 1}
    assert parity.compare(name, golden, golden) == []
    assert parity.compare(name, golden, wrong) != []
