"""Wrappers that make models of mmdet parts of hydet. mmdet is imported when a wrapper is built."""

from .backbone import MMDetBackbone
from .detector import MMDetDetector

__all__ = ["MMDetBackbone", "MMDetDetector"]
