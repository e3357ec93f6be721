"""hydet: detection and segmentation models for PyTorch, composed by Hydra configs."""

__version__ = "0.1.0"
