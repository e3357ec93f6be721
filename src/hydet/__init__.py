"""hydet: detection and segmentation models for PyTorch, composed by Hydra configs."""

from .config import ConfigError, compose, instantiate

__version__ = "0.1.0"

__all__ = ["ConfigError", "__version__", "compose", "instantiate"]
