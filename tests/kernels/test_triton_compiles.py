"""Compilation of all kernels on machines without a GPU, because the interpreter accepts code that the compiler rejects."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import hydet.kernels


@pytest.mark.skipif(torch.cuda.is_available(), reason="the other tests compile the kernels on this machine")
def test_every_kernel_compiles_for_a_gpu():
    pytest.importorskip("triton")
    script = Path(__file__).with_name("compile_all.py")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    result = subprocess.run(
        [sys.executable, str(script), "90"], capture_output=True, text=True, env=environment, encoding="utf-8"
    )
    assert result.returncode == 0, result.stderr[-4000:]
    kernels_folder = Path(hydet.kernels.__file__).parent
    for path in kernels_folder.glob("*/triton*.py"):
        for kernel in re.findall(r"^def (_\w+_kernel)\(", path.read_text(encoding="utf-8"), re.MULTILINE):
            assert f"hydet.kernels.{path.parent.name}.{path.stem}.{kernel}" in result.stdout
