"""Small backbones of every architecture, and a backbone without weights."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from hydet.layers import ShapeSpec
from hydet.modeling import (
    FPN,
    AnyNet,
    Backbone,
    LastLevelMaxPool,
    LastLevelP6P7,
    MViT,
    RegNet,
    ResBasicBlock,
    ResBottleneckBlock,
    ResStem,
    SimpleFeaturePyramid,
    SimpleStem,
    SwinTransformer,
    TimmBackbone,
    ViT,
    make_resnet,
)

STAGES = ["res2", "res3", "res4", "res5"]


def make_small_resnet(**options):
    sizes = {"depth": 18, "stem_out_channels": 8, "res2_out_channels": 8, "freeze_at": 0}
    return make_resnet(**sizes | {"out_features": STAGES} | options)


def make_small_regnet(**options):
    return RegNet(
        stem_class=SimpleStem, stem_width=8, block_class=ResBottleneckBlock, depth=5, w_a=16.0, w_0=16, w_m=2.2,
        group_width=8, se_ratio=0.25, out_features=["stem", "s1", "s2"], **options,
    )  # fmt: skip


def make_small_anynet():
    return AnyNet(
        stem_class=ResStem, stem_width=8, block_class=ResBasicBlock, depths=[1, 2], widths=[8, 16],
        group_widths=[1, 1], strides=[1, 2], bottleneck_ratios=[1.0, 1.0], norm="FrozenBN",
        activation_class=nn.SiLU, out_features=["s1", "s2"],
    )  # fmt: skip


def make_small_vit(**options):
    options = {"img_size": 64, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4} | options
    options = {"use_rel_pos": True, "window_size": 3, "window_block_indexes": [0]} | options
    return ViT(pretrain_img_size=64, **options)


def make_small_swin(**options):
    options = {"embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4} | options
    return SwinTransformer(**{"out_indices": (0, 1)} | options)


def make_small_mvit(**options):
    options = {"img_size": 64, "embed_dim": 8, "depth": 4, "last_block_indexes": (0, 1, 2, 3)} | options
    return MViT(adaptive_window_size=8, **options)


def make_timm_backbone(name, **options):
    pytest.importorskip("timm")
    return TimmBackbone(model_name=name, **options)


BUILDERS = {
    "resnet": make_small_resnet,
    "dilated": lambda: make_resnet(
        depth=50, res5_dilation=2, res2_out_channels=32, width_per_group=8, out_features=["res5"]
    ),
    "regnet": make_small_regnet,
    "anynet": make_small_anynet,
    "vit": make_small_vit,
    "swin": make_small_swin,
    "mvit": make_small_mvit,
    "fpn": lambda: FPN(
        bottom_up=make_small_resnet(), in_features=STAGES, out_channels=16, top_block=LastLevelMaxPool()
    ),
    "fpn p6 p7": lambda: FPN(
        bottom_up=make_small_resnet(), in_features=STAGES[1:], out_channels=16, norm="LN", fuse_type="avg",
        top_block=LastLevelP6P7(in_channels=64, out_channels=16),
    ),
    "simple pyramid": lambda: SimpleFeaturePyramid(
        net=make_small_vit(patch_size=16), in_feature="last_feat", out_channels=16,
        scale_factors=(4.0, 2.0, 1.0, 0.5), top_block=LastLevelMaxPool(),
    ),
}  # fmt: skip


@pytest.fixture(scope="session")
def make_small():
    """Functions that build small backbones; keyword arguments replace the small sizes."""
    return SimpleNamespace(
        resnet=make_small_resnet,
        regnet=make_small_regnet,
        vit=make_small_vit,
        swin=make_small_swin,
        mvit=make_small_mvit,
        fpn=BUILDERS["fpn"],
        timm=make_timm_backbone,
    )


@pytest.fixture(params=BUILDERS)
def build_backbone(request):
    """A function that builds a small backbone; a test that takes it runs for every architecture."""
    return BUILDERS[request.param]


@pytest.fixture(params=BUILDERS, scope="module")
def backbone(request):
    """A small backbone in evaluation mode; a test that takes it runs for every architecture."""
    torch.manual_seed(0)
    return BUILDERS[request.param]().eval()


class PoolingBackbone(Backbone):
    """Average pooling to given strides; every map has two channels."""

    def __init__(self, **strides):
        super().__init__()
        self.strides = strides

    def output_shape(self):
        return {name: ShapeSpec(channels=2, stride=stride) for name, stride in self.strides.items()}

    def forward(self, x):
        return {n: nn.functional.avg_pool2d(x[:, :2], s, ceil_mode=True) for n, s in self.strides.items()}


@pytest.fixture(scope="session")
def pooling_backbone():
    """The class of a backbone without weights: ``pooling_backbone(a=4, b=8)`` has maps ``a`` and ``b``."""
    return PoolingBackbone


@pytest.fixture(scope="session")
def check_declared_shapes():
    """A function that compares the features of a backbone on the meta device with its ``output_shape``."""

    def check(backbone, channels=3):
        output = backbone.eval()(torch.zeros(1, channels, 64, 96, device="meta"))
        assert list(output) == list(backbone.output_shape())
        for name, spec in backbone.output_shape().items():
            assert output[name].shape == (1, spec.channels, 64 // spec.stride, 96 // spec.stride)

    return check
