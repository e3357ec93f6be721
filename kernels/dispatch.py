"""Selection of the implementation that runs an op.

An op has up to three implementations, called backends:

- ``torch``: vectorized PyTorch. Every op has it, and it runs on any device.
- ``torchvision``: torchvision's own op, where torchvision has one that computes the same numbers.
- ``triton``: a Triton kernel. It runs on CUDA tensors, and on CPU tensors in Triton's interpreter.

Each op declares its order of preference in its ``op.py``. The first backend that can run on the device of the tensors
is used. The choice is made at each call, never at import.

Set the environment variable ``HYDET_KERNELS`` to ``torch``, ``torchvision`` or ``triton`` to override the preference,
for example to debug or to benchmark. It is read at each call. ``reference`` is an alias of ``torch``, its name in
hydet 0.1.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Final, Literal, get_args

import torch

__all__ = [
    "ALIASES",
    "BACKENDS",
    "ENVIRONMENT_VARIABLE",
    "Backend",
    "Preference",
    "forced_backend",
    "torchvision_available",
    "triton_available",
    "triton_interprets",
]

Backend = Literal["torch", "torchvision", "triton"]
BACKENDS: Final[tuple[Backend, ...]] = get_args(Backend)
ALIASES: Final[dict[str, Backend]] = {"reference": "torch"}
ENVIRONMENT_VARIABLE: Final = "HYDET_KERNELS"


@cache
def triton_available() -> bool:
    """Return True if Triton can be imported. No driver is touched, so this says nothing about a GPU."""
    if find_spec("triton") is None:
        return False
    try:
        import triton  # noqa: F401
    except Exception:  # a broken installation must not disable the other backends
        return False
    return True


@cache
def torchvision_available() -> bool:
    """Return True if torchvision can be imported together with its compiled ops."""
    if find_spec("torchvision") is None:
        return False
    try:
        import torchvision.ops  # noqa: F401
    except Exception:  # a build for another torch version must not disable the other backends
        return False
    return hasattr(torch.ops.torchvision, "nms")


def triton_interprets() -> bool:
    """Return True if kernels run in Triton's interpreter (``TRITON_INTERPRET=1``), which accepts CPU tensors."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def forced_backend() -> Backend | None:
    """Return the backend named in ``HYDET_KERNELS``, or None if the variable is unset or empty.

    Raises:
        ValueError: if the variable names no backend.
    """
    name = os.environ.get(ENVIRONMENT_VARIABLE, "").strip().lower()
    if not name:
        return None
    if name in ALIASES:
        return ALIASES[name]
    for backend in BACKENDS:
        if name == backend:
            return backend
    raise ValueError(f"{ENVIRONMENT_VARIABLE} must be one of {', '.join(BACKENDS)} (or unset), got {name!r}")


def _why_not(backend: Backend, device_type: str) -> str | None:
    """Return the reason why a backend cannot run on a device, or None if it can."""
    if backend == "triton":
        if not triton_available():
            return "Triton is not installed"
        if device_type != "cuda" and not triton_interprets():
            return f"Triton needs CUDA tensors (or TRITON_INTERPRET=1), got {device_type}"
    if backend == "torchvision" and not torchvision_available():
        return "torchvision is not installed, or lacks its compiled ops"
    return None


@dataclass(frozen=True)
class Preference:
    """Backends of one op in order of preference.

    Args:
        op_name: name of the op in ``torch.ops.hydet``.
        cpu: order for every device that is not CUDA.
        cuda: order for CUDA tensors.
    """

    op_name: str
    cpu: tuple[Backend, ...] = ("torch",)
    cuda: tuple[Backend, ...] = ("triton", "torch")

    def __post_init__(self) -> None:
        for backend in self.cpu + self.cuda:
            if backend not in BACKENDS:
                raise ValueError(f"{self.op_name}: backends are {', '.join(BACKENDS)}, got {backend!r}")

    @property
    def has_torchvision(self) -> bool:
        """Return True if the op has a torchvision implementation."""
        return "torchvision" in self.cpu + self.cuda

    def choose(self, device: torch.device | str) -> Backend:
        """Return the backend for one call on tensors of ``device``.

        If ``torchvision`` is forced, ops that torchvision lacks follow their preference. A forced backend that the op
        has but that cannot run is an error, because it is forced only to be sure of what runs.

        Raises:
            ValueError: if ``HYDET_KERNELS`` names no backend.
            RuntimeError: if the forced backend cannot run on ``device``.
        """
        device_type = torch.device(device).type
        forced = forced_backend()
        if forced is not None and (forced != "torchvision" or self.has_torchvision):
            reason = _why_not(forced, device_type)
            if reason is not None:
                raise RuntimeError(
                    f"{ENVIRONMENT_VARIABLE}={forced}, but {self.op_name} cannot run with it: {reason}"
                )
            return forced
        order = self.cuda if device_type == "cuda" else self.cpu
        return next((backend for backend in order if _why_not(backend, device_type) is None), "torch")
