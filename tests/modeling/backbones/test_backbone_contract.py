"""Properties that every backbone has."""

import copy

import pytest
import torch
from torch import nn

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
    TorchvisionBackbone,
    ViT,
    checkpoint_activations,
    make_resnet,
)

STAGES = ["res2", "res3", "res4", "res5"]


def small_resnet(**options):
    sizes = {"depth": 18, "stem_out_channels": 8, "res2_out_channels": 8, "freeze_at": 0}
    return make_resnet(**sizes | {"out_features": STAGES} | options)


def small_regnet(**options):
    return RegNet(
        stem_class=SimpleStem, stem_width=8, block_class=ResBottleneckBlock, depth=5, w_a=16.0, w_0=16, w_m=2.2,
        group_width=8, se_ratio=0.25, out_features=["stem", "s1", "s2"], **options,
    )  # fmt: skip


def small_anynet():
    return AnyNet(
        stem_class=ResStem, stem_width=8, block_class=ResBasicBlock, depths=[1, 2], widths=[8, 16],
        group_widths=[1, 1], strides=[1, 2], bottleneck_ratios=[1.0, 1.0], norm="FrozenBN",
        activation_class=nn.SiLU, out_features=["s1", "s2"],
    )  # fmt: skip


def small_vit(**options):
    options = {"img_size": 64, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4} | options
    options = {"use_rel_pos": True, "window_size": 3, "window_block_indexes": [0]} | options
    return ViT(pretrain_img_size=64, **options)


def small_swin(**options):
    options = {"embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4} | options
    return SwinTransformer(**{"out_indices": (0, 1)} | options)


def timm_backbone(name, **options):
    pytest.importorskip("timm")
    return TimmBackbone(model_name=name, **options)


def small_mvit(**options):
    options = {"img_size": 64, "embed_dim": 8, "depth": 4, "last_block_indexes": (0, 1, 2, 3)} | options
    return MViT(adaptive_window_size=8, **options)


BUILDERS = {
    "resnet": small_resnet,
    "dilated": lambda: make_resnet(depth=50, res5_dilation=2, res2_out_channels=32, width_per_group=8, out_features=["res5"]),
    "regnet": small_regnet,
    "anynet": small_anynet,
    "vit": small_vit,
    "swin": small_swin,
    "mvit": small_mvit,
    "fpn": lambda: FPN(
        bottom_up=small_resnet(), in_features=STAGES, out_channels=16, top_block=LastLevelMaxPool()
    ),
    "fpn p6 p7": lambda: FPN(
        bottom_up=small_resnet(), in_features=STAGES[1:], out_channels=16, norm="LN", fuse_type="avg",
        top_block=LastLevelP6P7(in_channels=64, out_channels=16),
    ),
    "simple pyramid": lambda: SimpleFeaturePyramid(
        net=small_vit(patch_size=16), in_feature="last_feat", out_channels=16, scale_factors=(4.0, 2.0, 1.0, 0.5),
        top_block=LastLevelMaxPool(),
    ),
}  # fmt: skip


@pytest.fixture(params=BUILDERS, scope="module")
def backbone(request):
    torch.manual_seed(0)
    return BUILDERS[request.param]().eval()


@torch.no_grad()
def test_features_are_as_promised(backbone):
    assert isinstance(backbone, Backbone)
    output = backbone(torch.randn(2, 3, 64, 96))
    promised = backbone.output_shape()
    assert list(output) == list(promised)
    for name, feature in output.items():
        spec = promised[name]
        assert feature.shape == (2, spec.channels, -(-64 // spec.stride), -(-96 // spec.stride))
        assert feature.isfinite().all()


@torch.no_grad()
def test_images_of_a_batch_do_not_mix(backbone):
    images = torch.randn(2, 3, 64, 64)
    both = backbone(images)
    second = backbone(images[1:])
    for name, feature in both.items():
        torch.testing.assert_close(feature[1:], second[name], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_empty_batch(backbone):
    for name, feature in backbone(torch.zeros(0, 3, 64, 64)).items():
        assert feature.shape[:2] == (0, backbone.output_shape()[name].channels)


@torch.no_grad()
def test_memory_format_changes_nothing(backbone):
    images = torch.randn(1, 3, 64, 64)
    want = backbone(images)
    output = copy.deepcopy(backbone).to(memory_format=torch.channels_last)(
        images.to(memory_format=torch.channels_last)
    )
    for name in want:
        torch.testing.assert_close(output[name], want[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["regnet", "vit", "swin", "mvit", "fpn"])
@torch.no_grad()
def test_compiles_without_graph_breaks(name):
    backbone = BUILDERS[name]().eval()
    compiled = torch.compile(backbone, fullgraph=True, backend="eager")
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(compiled(images), backbone(images))


@pytest.mark.parametrize("name", BUILDERS)
def test_builds_on_the_meta_device(name):
    with torch.device("meta"):
        net = BUILDERS[name]()
    assert all(tensor.is_meta for tensor in net.state_dict().values())


@pytest.mark.parametrize(
    "build",
    [
        lambda: small_resnet(norm="BN"),
        lambda: small_regnet(norm="BN"),
        lambda: small_vit(drop_path_rate=0.5),
        lambda: small_swin(drop_path_rate=0.5, drop_rate=0.1),
        lambda: small_mvit(drop_path_rate=0.5),
        lambda: timm_backbone("resnet10t"),
        lambda: timm_backbone("mobilenetv3_small_050"),
        lambda: timm_backbone("convnext_atto", model_options={"drop_path_rate": 0.5}),
        lambda: TorchvisionBackbone(model_name="resnet18"),
        lambda: TorchvisionBackbone(model_name="mobilenet_v3_small"),
    ],
    ids=[
        "resnet",
        "regnet",
        "vit",
        "swin",
        "mvit",
        "timm",
        "timm mobile",
        "timm convnext",
        "torchvision",
        "mobile",
    ],
)
def test_checkpointing_changes_no_number(build):
    """Neither outputs, nor gradients, nor the statistics of batch norms, nor what is dropped at random."""
    torch.manual_seed(0)
    plain = build().train()
    frugal = copy.deepcopy(checkpoint_activations(copy.deepcopy(plain)))
    images, output = torch.randn(2, 3, 64, 64), []
    for net in (plain, frugal):
        torch.manual_seed(1)
        sum(feature.square().mean() for feature in net(images).values()).backward()
        gradients = {f"{n} (gradient)": p.grad for n, p in net.named_parameters() if p.grad is not None}
        output.append(net.state_dict() | gradients)
    assert output[0].keys() == output[1].keys() and len(output[0]) > len(plain.state_dict())
    for name, value in output[0].items():
        torch.testing.assert_close(output[1][name], value, rtol=0, atol=0)


def test_checkpointing_keeps_less():
    def bytes_kept(net):
        indices = 0

        def pack(tensor):
            nonlocal indices
            indices += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            net(torch.randn(1, 3, 64, 64))
        return indices

    net = small_vit(depth=4, window_block_indexes=[])
    before = bytes_kept(net)
    assert bytes_kept(checkpoint_activations(net)) < before / 3
    assert bytes_kept(checkpoint_activations(net, enabled=False)) == before


def test_checkpointing_needs_a_backbone_that_can():
    with pytest.raises(ValueError, match="no backbone with activation checkpointing"):
        checkpoint_activations(nn.Linear(1, 1))


def test_checkpointing_reaches_into_a_pyramid():
    pyramid = checkpoint_activations(BUILDERS["fpn"]())
    assert pyramid.bottom_up.use_act_checkpoint


class Tiny(Backbone):
    """A minimal custom backbone."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=4, padding=1)
        self._out_features = ["x"]
        self._out_feature_channels = {"x": 4}
        self._out_feature_strides = {"x": 4}

    def forward(self, x):
        return {"x": self.conv(x)}


def test_a_backbone_of_ones_own_joins_a_pyramid():
    pyramid = FPN(bottom_up=Tiny(), in_features=["x"], out_channels=8)
    assert pyramid(torch.zeros(1, 3, 16, 16))["p2"].shape == (1, 8, 4, 4)
    assert Tiny().size_divisibility == 0 and Tiny().padding_constraints == {}


def test_backbone_is_abstract():
    with pytest.raises(TypeError, match="forward"):
        Backbone()
