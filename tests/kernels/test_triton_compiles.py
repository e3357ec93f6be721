"""The interpreter accepts what the compiler does not, so the compiler is asked too, on machines without a GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch


@pytest.mark.skipif(torch.cuda.is_available(), reason="the other tests compile and run them here")
def test_every_kernel_compiles_for_a_gpu():
    pytest.importorskip("triton")
    script = Path(__file__).with_name("compile_all.py")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, str(script), "90"], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-4000:]
    for kernel in ("_box_iou_rotated_kernel", "_suppression_kernel", "_match_kernel", "_paste_kernel"):
        assert kernel in done.stdout
