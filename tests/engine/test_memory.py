import importlib
import sys

import torch

from hydet.engine import memory


def test_peak_memory_of_the_process_in_gib():
    block = torch.ones(64 << 20, dtype=torch.uint8)
    peak = memory.peak_memory_gb(torch.device("cpu"))
    assert peak > block.nbytes / 2**30
    del block
    assert memory.peak_memory_gb(torch.device("cpu")) >= peak


def test_units_of_macos(monkeypatch):
    linux = memory.peak_memory_gb(torch.device("cpu"))
    monkeypatch.setattr(sys, "platform", "darwin")
    assert memory.peak_memory_gb(torch.device("cpu")) < 0.01 * linux  # bytes, not KiB


def test_systems_without_the_resource_module(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "resource", None)  # importing it raises ImportError, as on Windows
        importlib.reload(memory)
        assert memory.peak_memory_gb(torch.device("cpu")) is None
    importlib.reload(memory)
    assert memory.peak_memory_gb(torch.device("cpu")) > 0
