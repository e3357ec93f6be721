"""Models of mmdet as parts of hydet; mmdet itself is imported when one is built."""

from .backbone import MMDetBackbone
from .detector import MMDetDetector

__all__ = ["MMDetBackbone", "MMDetDetector"]
