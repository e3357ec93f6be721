"""Images to feature maps."""

from .backbone import Backbone
from .fpn import FPN, LastLevelMaxPool, LastLevelP6P7
from .resnet import ResNet, make_resnet, resnet_channels
from .resnet_blocks import BasicBlock, BasicStem, BottleneckBlock, DeformBottleneckBlock

__all__ = [
    "FPN",
    "Backbone",
    "BasicBlock",
    "BasicStem",
    "BottleneckBlock",
    "DeformBottleneckBlock",
    "LastLevelMaxPool",
    "LastLevelP6P7",
    "ResNet",
    "make_resnet",
    "resnet_channels",
]
