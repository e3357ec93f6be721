"""Which device and which precision a run uses."""

from __future__ import annotations

import os

import torch

__all__ = ["resolve_precision", "select_device"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def select_device(device: torch.device | str = "auto") -> torch.device:
    """The device that ``device`` stands for.

    Args:
        device: ``"auto"`` for CUDA where there is one and the CPU elsewhere; else what torch accepts. ``"cuda"``
            without a number is this process's GPU under torchrun.

    Raises:
        ValueError: for an unknown device, or CUDA where there is none.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ValueError(
            f"device must be 'auto', 'cpu', 'cuda', 'cuda:N' or 'mps', got {device!r}"
        ) from error
    if chosen.type != "cuda":
        return chosen
    if not torch.cuda.is_available():
        raise ValueError(f"device={device}, but torch finds no CUDA device here; device=cpu works")
    index = chosen.index if chosen.index is not None else int(os.environ.get("LOCAL_RANK", "0"))
    if index >= torch.cuda.device_count():
        raise ValueError(f"device={device} asks for GPU {index}, there are {torch.cuda.device_count()}")
    return torch.device("cuda", index)


def resolve_precision(precision: str, device: torch.device) -> torch.dtype:
    """The data type that autocast uses; float32 stands for no autocast.

    Args:
        precision: ``"fp32"``, ``"bf16"``, ``"fp16"``, or ``"auto"``: bfloat16 on GPUs that have it, float16 on
            others, float32 elsewhere.
        device: where the model runs.

    Raises:
        ValueError: for another name, or float16 away from CUDA.
    """
    if precision == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if precision not in DTYPES:
        raise ValueError(f"precision must be 'auto' or one of {sorted(DTYPES)}, got {precision!r}")
    if precision == "fp16" and device.type != "cuda":
        raise ValueError(f"precision=fp16 needs CUDA, this run is on {device.type}; take bf16 or fp32")
    return DTYPES[precision]
