"""Select the device and the precision of a run."""

from __future__ import annotations

import os

import torch

__all__ = ["cuda_rng_devices", "resolve_precision", "select_device"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def select_device(device: torch.device | str = "auto") -> torch.device:
    """Resolve a device name.

    Args:
        device: ``"auto"`` selects CUDA if available and the CPU otherwise; any other value is passed to
            ``torch.device``. ``"cuda"`` without an index selects the GPU of this process under torchrun.

    Raises:
        ValueError: if the device is unknown or not available.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        selected = torch.device(device)
    except RuntimeError as error:
        raise ValueError(
            f"device must be 'auto', 'cpu', 'cuda', 'cuda:N' or 'mps', got {device!r}"
        ) from error
    if selected.type != "cuda":
        return selected
    if not torch.cuda.is_available():
        raise ValueError(f"device={device}, but torch finds no CUDA device; use device=cpu")
    index = selected.index if selected.index is not None else int(os.environ.get("LOCAL_RANK", "0"))
    if index >= torch.cuda.device_count():
        raise ValueError(
            f"device={device} selects GPU {index}, but there are {torch.cuda.device_count()} GPUs"
        )
    return torch.device("cuda", index)


def resolve_precision(precision: str, device: torch.device) -> torch.dtype:
    """Return the data type for autocast; float32 means no autocast.

    Args:
        precision: ``"fp32"``, ``"bf16"``, ``"fp16"`` or ``"auto"``. ``"auto"`` is bfloat16 on GPUs that support it,
            float16 on other GPUs and float32 elsewhere.
        device: device of the model.

    Raises:
        ValueError: if the name is unknown, or float16 is requested for another device than CUDA.
    """
    if precision == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if precision not in DTYPES:
        raise ValueError(f"precision must be 'auto' or one of {sorted(DTYPES)}, got {precision!r}")
    if precision == "fp16" and device.type != "cuda":
        raise ValueError(f"precision=fp16 needs CUDA, but this run is on {device.type}; use bf16 or fp32")
    return DTYPES[precision]


def cuda_rng_devices() -> list[int]:
    """Return the CUDA devices whose random state this process may change, for ``torch.random.fork_rng``."""
    return [torch.cuda.current_device()] if torch.cuda.is_available() and torch.cuda.is_initialized() else []
