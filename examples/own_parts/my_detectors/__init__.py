"""Parts of your own: a box head, a backbone and two whole detectors. Nothing is registered."""

from .center_detector import CenterDetector
from .gated_box_head import GatedBoxHead
from .one_box_detector import OneBoxDetector
from .strip_net import StripNet

__all__ = ["CenterDetector", "GatedBoxHead", "OneBoxDetector", "StripNet"]
