"""hydet: detection and segmentation models for PyTorch, composed by Hydra configs."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ._version import __version__
from .config import ConfigError, compose, instantiate

if TYPE_CHECKING:
    from .modeling import optimize
    from .runs.detector import Detector, load
    from .runs.result import Result

__all__ = ["ConfigError", "Detector", "Result", "__version__", "compose", "instantiate", "load", "optimize"]

# Name -> module that defines it. They are imported at their first use, so that ``import hydet`` imports no torch modules.
_LAZY = {
    "Detector": "hydet.runs.detector",
    "Result": "hydet.runs.result",
    "load": "hydet.runs.detector",
    "optimize": "hydet.modeling",
}


def __getattr__(name: str) -> object:
    """Import a name of ``_LAZY`` at its first use."""
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
