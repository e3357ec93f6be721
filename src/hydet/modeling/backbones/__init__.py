"""Networks that turn images into feature maps."""

from .backbone import Backbone
from .checkpointing import checkpoint_activations
from .fpn import FPN, LastLevelMaxPool, LastLevelP6P7
from .resnet import ResNet, make_resnet
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
    "checkpoint_activations",
    "make_resnet",
]
