"""Compile and call ``rotated_loop.cpp``, with which the rotated ops are compared on a CPU."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch
from torch import Tensor


class RotatedLoop:
    """``rotated_loop.cpp`` by ctypes."""

    def __init__(self, library: Path) -> None:
        self.library = ctypes.CDLL(str(library))
        self.library.nms.restype = ctypes.c_int64

    @staticmethod
    def _pointer(tensor: Tensor) -> ctypes.c_void_p:
        return ctypes.c_void_p(tensor.data_ptr())

    def iou(self, boxes: Tensor, *, skip_far: bool) -> Tensor:
        count = ctypes.c_int64(len(boxes))
        out = torch.empty(len(boxes), len(boxes))
        box_pointer = self._pointer(boxes)
        self.library.iou_matrix(
            box_pointer, count, box_pointer, count, self._pointer(out), ctypes.c_bool(skip_far)
        )
        return out

    def nms(self, boxes: Tensor, scores: Tensor, *, skip_far: bool) -> Tensor:
        indices = torch.empty(len(boxes), dtype=torch.int64)
        count = self.library.nms(
            self._pointer(boxes),
            self._pointer(scores),
            ctypes.c_int64(len(boxes)),
            ctypes.c_float(0.5),
            self._pointer(indices),
            ctypes.c_bool(skip_far),
        )
        return indices[:count]


@cache
def rotated_loop() -> RotatedLoop | None:
    """The loop, compiled with ``g++ -O3 -march=native``; None without g++."""
    if shutil.which("g++") is None:
        print("no g++: the rotated ops are not compared with a C++ loop")
        return None
    library = Path(tempfile.mkdtemp()) / "rotated_loop.so"
    source = Path(__file__).parent / "rotated_loop.cpp"
    flags = ["-O3", "-march=native", "-std=c++17", "-shared", "-fPIC"]
    subprocess.run(["g++", *flags, str(source), "-o", str(library)], check=True)
    return RotatedLoop(library)
