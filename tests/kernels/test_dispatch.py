"""Choice of implementation."""

import ast
import sys
from pathlib import Path

import pytest
import torch

from hydet.kernels import backends, box_iou_rotated, choose, dispatch


def test_every_op_has_a_backend_for_each_device(monkeypatch):
    monkeypatch.delenv("HYDET_KERNELS", raising=False)
    table = backends()
    assert set(table) == set(dispatch.PREFERENCES)
    for row in table.values():
        assert set(row) == {"cpu", "cuda"}
        assert set(row.values()) <= set(dispatch.BACKENDS)


@pytest.mark.parametrize("name", ["reference", "triton", "torchvision"])
def test_forcing(monkeypatch, name):
    monkeypatch.setenv("HYDET_KERNELS", name)
    monkeypatch.setattr(dispatch, "triton_available", lambda: True)
    assert choose("nms", "cuda") == name


def test_torchvision_is_forced_only_where_it_has_the_op(monkeypatch):
    monkeypatch.setenv("HYDET_KERNELS", "torchvision")
    assert choose("nms_rotated", "cpu") == "reference"


def test_unknown_names_are_errors(monkeypatch):
    with pytest.raises(ValueError, match="unknown op 'nsm'"):
        choose("nsm", "cpu")
    monkeypatch.setenv("HYDET_KERNELS", "tirton")
    with pytest.raises(ValueError, match="got 'tirton'"):
        choose("nms", "cpu")


def test_forced_triton_that_cannot_run_says_why(monkeypatch):
    monkeypatch.setenv("HYDET_KERNELS", "triton")
    monkeypatch.setattr(dispatch, "triton_interprets", lambda: False)
    with pytest.raises(RuntimeError, match="cannot run there"):
        box_iou_rotated(torch.ones(1, 5), torch.ones(1, 5))
    assert backends()["match"]["cpu"] == "unavailable"


def test_without_triton_everything_falls_back(monkeypatch):
    monkeypatch.delenv("HYDET_KERNELS", raising=False)
    monkeypatch.setattr(dispatch, "triton_available", lambda: False)
    assert "triton" not in {name for row in backends().values() for name in row.values()}


def test_triton_that_cannot_be_imported_counts_as_absent(monkeypatch):
    dispatch.triton_available.cache_clear()
    monkeypatch.setitem(sys.modules, "triton", None)
    assert not dispatch.triton_available()
    monkeypatch.undo()
    dispatch.triton_available.cache_clear()


def test_importing_the_ops_imports_no_triton():
    """Only the kernels' own modules do, and those are imported where they run."""
    folder = Path(dispatch.__file__).parent
    for path in folder.rglob("*.py"):
        if "triton" in path.stem:
            continue
        for node in ast.parse(path.read_text()).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if "triton" in name], path
