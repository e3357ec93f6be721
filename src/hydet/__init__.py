"""hydet: detection and segmentation models for PyTorch, composed by Hydra configs."""

from ._version import __version__
from .config import ConfigError, compose, instantiate

__all__ = ["ConfigError", "__version__", "compose", "instantiate"]
