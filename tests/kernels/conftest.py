"""Where Triton kernels run in these tests: the interpreter, or a GPU under ``-m gpu``."""

import pytest
import torch


@pytest.fixture(params=["interpreter", pytest.param("cuda", marks=pytest.mark.gpu)])
def triton_device(request):
    pytest.importorskip("triton")
    if request.param == "interpreter" and torch.cuda.is_available():
        pytest.skip("kernels are compiled on this machine, so the interpreter is off")
    return torch.device("cpu" if request.param == "interpreter" else "cuda")
