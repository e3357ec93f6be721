"""Which implementation of an op runs: decided when it is called, never when it is imported.

Each op has a definition in plain torch (``reference``), a Triton kernel (``triton``) and, for some, a
twin in torchvision (``torchvision``). ``PREFERENCES`` says in which order they are tried for a device;
the first that can run there does. ``HYDET_KERNELS=reference|triton|torchvision`` overrides it for
debugging; it is read at each call.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

import torch

__all__ = [
    "BACKENDS",
    "PREFERENCES",
    "Preference",
    "backends",
    "choose",
    "forced_backend",
    "triton_available",
]

BACKENDS = ("reference", "triton", "torchvision")
VARIABLE = "HYDET_KERNELS"


@dataclass(frozen=True)
class Preference:
    """Order of the backends of one op; an op has a torchvision twin exactly if it is named in one of them."""

    cpu: tuple[str, ...] = ("reference",)
    cuda: tuple[str, ...] = ("triton", "reference")

    def __post_init__(self) -> None:
        for name in (*self.cpu, *self.cuda):
            if name not in BACKENDS:
                raise ValueError(f"a backend is one of {BACKENDS}, got {name!r}")

    @property
    def has_torchvision(self) -> bool:
        return "torchvision" in self.cpu + self.cuda


# Where torchvision has the op, it stays first on CUDA until a table in benchmarks/results shows that the
# Triton kernel is faster.
PREFERENCES: Mapping[str, Preference] = {
    "roi_align": Preference(cpu=("torchvision", "reference"), cuda=("torchvision", "triton", "reference")),
    "roi_align_rotated": Preference(),
    # torchvision's box_iou takes rotated boxes too: off by 0.27 where a box meets itself turned by 360 degrees, by 0.35
    # far from the origin, and slower on a CPU, so nothing prefers it.
    "box_iou_rotated": Preference(),
    "nms_rotated": Preference(),
    "nms": Preference(cpu=("torchvision", "reference"), cuda=("triton", "reference")),
    "match": Preference(),
    "sigmoid_focal_loss": Preference(),
    "paste_masks": Preference(),
}


@cache
def triton_available() -> bool:
    """Whether Triton can be imported; says nothing about a device (no driver is touched)."""
    if find_spec("triton") is None:
        return False
    try:
        import triton  # noqa: F401
    except Exception:  # a broken or foreign Triton must not take the torch path down with it
        return False
    return True


def triton_interprets() -> bool:
    """Whether kernels run in Triton's interpreter (``TRITON_INTERPRET=1``), on CPU tensors too."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def forced_backend() -> str | None:
    """The backend named in ``HYDET_KERNELS``, or None where the variable is unset or empty.

    Raises:
        ValueError: if it names none.
    """
    name = os.environ.get(VARIABLE, "").strip().lower()
    if not name:
        return None
    if name not in BACKENDS:
        raise ValueError(f"{VARIABLE} must be one of {', '.join(BACKENDS)} (or unset), got {name!r}")
    return name


def _runs(backend: str, device_type: str) -> bool:
    if backend != "triton":
        return True
    return triton_available() and (device_type == "cuda" or triton_interprets())


def choose(op_name: str, device: torch.device | str) -> str:
    """Backend for one call of ``op_name`` on tensors of ``device``: ``reference``, ``triton`` or ``torchvision``.

    A forced ``torchvision`` falls back to the preferred order for ops that torchvision lacks; a forced
    ``triton`` that cannot run is an error, since its only use is to be sure of what runs.

    Raises:
        ValueError: for an unknown op, or if ``HYDET_KERNELS`` names no backend.
        RuntimeError: if Triton is forced where it cannot run.
    """
    if op_name not in PREFERENCES:
        raise ValueError(f"unknown op {op_name!r}; there are {', '.join(PREFERENCES)}")
    preference = PREFERENCES[op_name]
    device_type = torch.device(device).type
    forced = forced_backend()
    if forced == "triton" and not _runs("triton", device_type):
        reason = (
            f"Triton needs CUDA tensors (or TRITON_INTERPRET=1), got {device_type}"
            if triton_available()
            else "Triton is not installed"
        )
        raise RuntimeError(f"{VARIABLE}=triton, but {op_name} cannot run there: {reason}")
    if forced in ("reference", "triton") or (forced == "torchvision" and preference.has_torchvision):
        return forced
    order = preference.cuda if device_type == "cuda" else preference.cpu
    return next((backend for backend in order if _runs(backend, device_type)), "reference")


def backends() -> dict[str, dict[str, str]]:
    """What would run now, as ``{op: {"cpu": backend, "cuda": backend}}``; ``unavailable`` where a forced one cannot.

    ``cuda`` is listed whether or not there is a device: it names what the preference would pick.
    """

    def picked(op_name: str, device_type: str) -> str:
        try:
            return choose(op_name, device_type)
        except RuntimeError:
            return "unavailable"

    return {name: {kind: picked(name, kind) for kind in ("cpu", "cuda")} for name in PREFERENCES}
