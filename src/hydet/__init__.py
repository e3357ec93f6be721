"""hydet: detection and segmentation models for PyTorch, composed by Hydra configs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._version import __version__
from .config import ConfigError, compose, instantiate

if TYPE_CHECKING:
    from .modeling import optimize

__all__ = ["ConfigError", "__version__", "compose", "instantiate", "optimize"]


def __getattr__(name: str) -> object:
    """Import ``optimize`` at its first use, so that ``import hydet`` does not import torch's modules."""
    if name == "optimize":
        from .modeling import optimize

        return optimize
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
