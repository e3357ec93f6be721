"""Backbones: images to feature maps."""

from .backbone import Backbone, checkpoint_activations
from .channel_counts import channels_at_stride, resnet_channels
from .fpn import FPN, LastLevelMaxPool, LastLevelP6P7
from .input_inflation import inflate_input_weights
from .mvit import MViT
from .regnet import AnyNet, RegNet
from .regnet_blocks import ResBasicBlock, ResBottleneckBlock, ResStem, SimpleStem, VanillaBlock
from .resnet import ResNet, make_resnet
from .resnet_blocks import BasicBlock, BasicStem, BottleneckBlock, DeformBottleneckBlock
from .simple_feature_pyramid import SimpleFeaturePyramid
from .swin import SwinTransformer
from .timm_backbone import TimmBackbone
from .torchvision_backbone import TorchvisionBackbone
from .vit import ViT, get_vit_lr_decay_rate

__all__ = [
    "FPN",
    "AnyNet",
    "Backbone",
    "BasicBlock",
    "BasicStem",
    "BottleneckBlock",
    "DeformBottleneckBlock",
    "LastLevelMaxPool",
    "LastLevelP6P7",
    "MViT",
    "RegNet",
    "ResBasicBlock",
    "ResBottleneckBlock",
    "ResNet",
    "ResStem",
    "SimpleFeaturePyramid",
    "SimpleStem",
    "SwinTransformer",
    "TimmBackbone",
    "TorchvisionBackbone",
    "VanillaBlock",
    "ViT",
    "channels_at_stride",
    "checkpoint_activations",
    "get_vit_lr_decay_rate",
    "inflate_input_weights",
    "make_resnet",
    "resnet_channels",
]
