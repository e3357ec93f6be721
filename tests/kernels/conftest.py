"""Implementations of ops for tests. Triton kernels run in the interpreter, or on a GPU under ``-m gpu``."""

import importlib

import pytest
import torch

TRITON_DEVICES = ["interpreter", pytest.param("cuda", marks=pytest.mark.gpu)]


def device_of(name):
    pytest.importorskip("triton")
    if name == "interpreter" and torch.cuda.is_available():
        pytest.skip("kernels are compiled on this machine, so the interpreter is off")
    return torch.device("cpu" if name == "interpreter" else "cuda")


def moved(value, device):
    """Move the tensors in an argument or result to a device."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, (list, tuple)):
        return type(value)(moved(v, device) for v in value)
    return value


@pytest.fixture(params=TRITON_DEVICES)
def triton_device(request):
    return device_of(request.param)


def pytest_generate_tests(metafunc):
    """Run a test that uses ``backend`` with every implementation of the op that its module names in ``OP``."""
    op = getattr(metafunc.module, "OP", None)
    if op is not None and "backend" in metafunc.fixturenames:
        names = ["torch"]
        if importlib.util.find_spec(f"hydet.kernels.{op}.torchvision_impl"):
            names.append("torchvision")
        names += [
            "triton-interpreter",
            pytest.param("triton-cuda", marks=pytest.mark.gpu),
        ]
        metafunc.parametrize("backend", names)


def load(op, backend, direction):
    """Return the implementation of an op as a function from and to CPU tensors."""
    if not backend.startswith("triton"):
        module = importlib.import_module(f"hydet.kernels.{op}.{backend}_impl")
        return getattr(module, f"{direction}_{backend}")
    device = device_of(backend.removeprefix("triton-"))
    module = importlib.import_module(f"hydet.kernels.{op}.triton_impl")
    launch = getattr(module, f"launch_{direction}")

    def run(*args, **settings):
        return moved(launch(*moved(args, device), **settings), "cpu")

    return run


@pytest.fixture
def forward(request, backend):
    """The forward pass of one implementation, from and to CPU tensors."""
    return load(request.module.OP, backend, "forward")


@pytest.fixture
def backward(request, backend):
    """The backward pass of one implementation, from and to CPU tensors."""
    return load(request.module.OP, backend, "backward")
