"""Selection of the implementation of an op."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hydet.kernels import box_iou_rotated, dispatch
from hydet.kernels.dispatch import Preference

WITH_TORCHVISION = Preference(
    "some_op", cpu=("torchvision", "torch"), cuda=("triton", "torchvision", "torch")
)
WITHOUT_TORCHVISION = Preference("other_op")


@pytest.fixture
def no_forced_backend(monkeypatch):
    monkeypatch.delenv("HYDET_KERNELS", raising=False)


@pytest.mark.parametrize("name", ["torch", "triton", "torchvision"])
def test_forced_backend(monkeypatch, name):
    monkeypatch.setenv("HYDET_KERNELS", name.upper())
    monkeypatch.setattr(dispatch, "triton_available", lambda: True)
    assert WITH_TORCHVISION.choose("cuda") == name


def test_reference_is_an_alias_of_torch(monkeypatch):
    monkeypatch.setenv("HYDET_KERNELS", "reference")
    assert WITH_TORCHVISION.choose("cpu") == "torch"


def test_forced_torchvision_does_not_affect_ops_without_it(monkeypatch):
    monkeypatch.setenv("HYDET_KERNELS", "torchvision")
    assert WITHOUT_TORCHVISION.choose("cpu") == "torch"


def test_unknown_backends_are_errors(monkeypatch):
    monkeypatch.setenv("HYDET_KERNELS", "tirton")
    with pytest.raises(ValueError, match="got 'tirton'"):
        WITH_TORCHVISION.choose("cpu")
    with pytest.raises(ValueError, match="some_op: backends are"):
        Preference("some_op", cpu=("numpy",))


def test_forced_triton_without_a_gpu_is_an_error(monkeypatch):
    monkeypatch.setenv("HYDET_KERNELS", "triton")
    monkeypatch.setattr(dispatch, "triton_available", lambda: True)
    monkeypatch.setattr(dispatch, "triton_interprets", lambda: False)
    with pytest.raises(RuntimeError, match="box_iou_rotated cannot run with it: Triton needs CUDA tensors"):
        box_iou_rotated(torch.ones(1, 5), torch.ones(1, 5))


@pytest.mark.parametrize("name", ["triton", "torchvision"])
def test_forced_backend_that_is_not_installed_is_an_error(monkeypatch, name):
    monkeypatch.setenv("HYDET_KERNELS", name)
    monkeypatch.setattr(dispatch, f"{name}_available", lambda: False)
    with pytest.raises(RuntimeError, match="is not installed"):
        WITH_TORCHVISION.choose("cuda")


@pytest.mark.usefixtures("no_forced_backend")
def test_backends_that_are_not_installed_are_skipped(monkeypatch):
    monkeypatch.setattr(dispatch, "triton_available", lambda: False)
    assert WITH_TORCHVISION.choose("cuda") == "torchvision"
    monkeypatch.setattr(dispatch, "torchvision_available", lambda: False)
    assert WITH_TORCHVISION.choose("cuda") == "torch"
    assert WITH_TORCHVISION.choose("cpu") == "torch"


@pytest.mark.parametrize("name", ["triton", "torchvision"])
def test_package_that_fails_at_import_counts_as_missing(monkeypatch, name):
    is_available = getattr(dispatch, f"{name}_available")
    is_available.cache_clear()
    monkeypatch.setitem(sys.modules, "triton" if name == "triton" else "torchvision.ops", None)
    if name == "torchvision":
        monkeypatch.delattr("torchvision.ops", raising=False)
    assert not is_available()
    monkeypatch.undo()
    is_available.cache_clear()


def test_op_modules_do_not_import_triton_or_torchvision():
    """Only files with ``triton`` or ``torchvision`` in their names do, and ops import them when they run."""
    folder = Path(dispatch.__file__).parent
    for path in folder.rglob("*.py"):
        if "triton" in path.stem or "torchvision" in path.stem:
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if "triton" in name or "torchvision" in name], path


def test_ops_run_without_triton_and_torchvision():
    script = """
import sys
sys.modules["triton"] = sys.modules["torchvision"] = None  # importing them raises ImportError
import torch, hydet.kernels
assert {row["cpu"] for row in hydet.kernels.backends().values()} == {"torch"}
boxes = torch.tensor([[[0.0, 0, 4, 4], [0, 0, 4, 3]]])
indices, counts = hydet.kernels.nms_padded(boxes, torch.tensor([[1.0, 2]]), 0.5)
assert indices.tolist() == [[1, 0]] and counts.tolist() == [1]
rois = torch.tensor([[0.0, 0, 0, 4, 4]])
hydet.kernels.roi_align([torch.ones(1, 1, 4, 4)], rois, output_size=(2, 2), spatial_scales=[1.0])
"""
    environment = {name: value for name, value in os.environ.items() if name != "HYDET_KERNELS"}
    result = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, encoding="utf-8"
    )
    assert result.returncode == 0, result.stderr[-2000:]
