import os

import pytest

# One thread: tests fork, and a child of a process whose OpenMP pool is awake waits for threads that it does not have.
os.environ["OMP_NUM_THREADS"] = "1"

import torch

torch.set_num_threads(1)

# Triton reads this when a kernel is decorated, so it must stand before anything imports hydet.kernels.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
