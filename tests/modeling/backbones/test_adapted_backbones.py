"""Networks of timm and torchvision as backbones, and images with other channels than three."""

import builtins
from functools import partial

import pytest
import torch
from torch import nn

from hydet.modeling import (
    FPN,
    LastLevelP6P7,
    TimmBackbone,
    TorchvisionBackbone,
    channels_at_stride,
    checkpoint_activations,
    inflate_input_weights,
)

TIMM = {
    "resnet10t": ["res1", "res2", "res3", "res4", "res5"],
    "convnext_atto": ["res2", "res3", "res4", "res5"],
    "swin_tiny_patch4_window7_224": ["res2", "res3", "res4", "res5"],  # gives (N, H, W, C)
    "vit_tiny_patch16_224": ["feat0", "feat1", "feat2"],
    "mobilenetv3_small_050": ["res1", "res2", "res3", "res4", "res5"],
}
TORCHVISION = [
    "resnet18",
    "mobilenet_v3_small",
    "convnext_tiny",
    "swin_t",
    "regnet_y_400mf",
    "efficientnet_b0",
]


def check_shapes(backbone, channels=3):
    """Without data: most of the time would go into random weights."""
    output = backbone.eval()(torch.zeros(1, channels, 64, 96, device="meta"))
    assert list(output) == list(backbone.output_shape())
    for name, spec in backbone.output_shape().items():
        assert output[name].shape == (1, spec.channels, 64 // spec.stride, 96 // spec.stride)


@pytest.mark.parametrize("name", TIMM)
@torch.no_grad()
def test_timm_shapes(name):
    pytest.importorskip("timm")
    with torch.device("meta"):
        backbone = TimmBackbone(model_name=name, in_channels=5)
    assert list(backbone.output_shape()) == TIMM[name]
    check_shapes(backbone, channels=5)


def test_timm_chooses_features_and_names():
    pytest.importorskip("timm")
    backbone = TimmBackbone(model_name="resnet10t", out_indices=[2, 3], out_names=["fine", "coarse"])
    assert {n: s.stride for n, s in backbone.output_shape().items()} == {"fine": 8, "coarse": 16}
    pyramid = FPN(bottom_up=backbone, in_features=["fine", "coarse"], out_channels=8)
    assert pyramid(torch.zeros(2, 3, 32, 32))["p3"].shape == (2, 8, 4, 4)
    with pytest.raises(ValueError, match="needs 2 names"):
        TimmBackbone(model_name="resnet10t", out_indices=[2, 3], out_names=["one"])


def test_timm_network_with_fixed_size_sets_square_pad():
    pytest.importorskip("timm")
    with torch.device("meta"):
        fixed, free = TimmBackbone(model_name="hiera_tiny_224"), TimmBackbone(model_name="resnet10t")
    assert fixed.padding_constraints == {"square_size": 224}
    assert free.padding_constraints == {} and free.size_divisibility == 32


def test_timm_unknown_network_names_a_close_one():
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match=r"'resnet5'.*similar names: .*resnet50"):
        TimmBackbone(model_name="resnet5")


def test_timm_missing(monkeypatch):
    real = builtins.__import__

    def without_timm(name, *args, **kwargs):
        if name == "timm":
            raise ModuleNotFoundError("No module named 'timm'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_timm)
    with pytest.raises(ImportError, match=r"pip install 'hydet\[timm\]'"):
        TimmBackbone(model_name="resnet10t")


def test_timm_frozen_stays_as_it_is():
    pytest.importorskip("timm")
    backbone = TimmBackbone(model_name="resnet10t", frozen=True).train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    backbone(torch.randn(2, 3, 32, 32))
    assert not any(p.requires_grad for p in backbone.parameters())
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_timm_checkpointing_switch():
    pytest.importorskip("timm")
    backbone = checkpoint_activations(
        TimmBackbone(model_name="vit_tiny_patch16_224", model_options={"depth": 3})
    )
    assert backbone.use_act_checkpoint is True
    backbone(torch.randn(1, 3, 32, 32))["feat2"].sum().backward()
    checkpoint_activations(backbone, enabled=False)
    assert backbone.use_act_checkpoint is False


@pytest.mark.parametrize("name", TORCHVISION)
@torch.no_grad()
def test_torchvision_shapes(name):
    with torch.device(
        "cpu" if name.startswith("regnet") else "meta"
    ):  # torchvision's reads numbers off tensors
        backbone = TorchvisionBackbone(model_name=name).to("meta")
    assert {n: s.stride for n, s in backbone.output_shape().items()} == {
        "res2": 4,
        "res3": 8,
        "res4": 16,
        "res5": 32,
    }
    check_shapes(backbone)


def test_torchvision_keeps_names_and_drops_unused_segments():
    from torchvision.models import resnet18

    model = resnet18()
    weights = model.state_dict()
    backbone = TorchvisionBackbone(model=model, out_features=["res3"])
    names = [name.removeprefix("model.") for name in backbone.state_dict()]
    assert set(names) < set(weights)
    assert not any(name.startswith(("layer3", "layer4", "fc")) for name in names)


@torch.no_grad()
def test_torchvision_features_are_those_of_the_network():
    from torchvision.models import resnet18

    torch.manual_seed(0)
    model = resnet18().eval()
    images = torch.randn(1, 3, 32, 32)
    x = model.layer2(model.layer1(model.maxpool(model.relu(model.bn1(model.conv1(images))))))
    traced = TorchvisionBackbone(model=model, return_nodes={"layer2": "mine", "layer1": "other"}).eval()
    assert traced.output_shape()["mine"].stride == 8
    torch.testing.assert_close(traced(images)["mine"], x)
    torch.testing.assert_close(TorchvisionBackbone(model=model).eval()(images)["res3"], x)


def test_torchvision_freeze_norm():
    backbone = TorchvisionBackbone(model_name="resnet18", freeze_norm=True).train()
    before = backbone.model.bn1.running_mean.clone()
    backbone(torch.randn(2, 3, 32, 32))["res5"].sum().backward()
    assert torch.equal(backbone.model.bn1.running_mean, before)
    assert backbone.model.bn1.weight.grad is None and backbone.model.conv1.weight.grad is not None


def test_torchvision_on_the_meta_device_and_compiled():
    with torch.device("meta"):
        backbone = TorchvisionBackbone(model_name="resnet18", in_channels=1)
    assert backbone.model.conv1.weight.shape == (64, 1, 7, 7) and backbone.model.conv1.weight.is_meta
    backbone = TorchvisionBackbone(model_name="resnet18").eval()
    compiled = torch.compile(backbone, fullgraph=True, backend="eager")
    images = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(compiled(images), backbone(images))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "either model_name or model"),
        ({"model_name": "resnet18", "model": nn.Identity()}, "either model_name or model"),
        ({"model": nn.Conv2d(3, 3, 1), "weights": "DEFAULT"}, "apply to model_name only"),
        ({"model": nn.Sequential(nn.Conv2d(3, 3, 1))}, "name them with return_nodes"),
        ({"model": nn.Sequential(nn.Linear(3, 3))}, "no convolution"),
        ({"model_name": "resnet18", "out_features": ["res9"]}, "res9"),
        ({"model_name": "resnet18", "return_nodes": ["layer1"], "use_act_checkpoint": True}, "checkpointing"),
    ],
)
def test_torchvision_errors(options, message):
    with pytest.raises(ValueError, match=message):
        TorchvisionBackbone(**options)


@pytest.mark.parametrize("name", ["resnet18", "regnet_y_400mf", "convnext_tiny"])
def test_channels_are_known_beforehand(name):
    make = partial(TorchvisionBackbone, model_name=name)
    channels = channels_at_stride(make_backbone=make, stride=32)
    assert channels == {"resnet18": 512, "regnet_y_400mf": 440, "convnext_tiny": 768}[name]
    with pytest.raises(ValueError, match=r"no feature of stride 64.*'res5': 32"):
        channels_at_stride(make_backbone=make, stride=64)


def test_a_top_block_fits_its_feature():
    backbone = TorchvisionBackbone(model_name="mobilenet_v3_small")
    parts = {"bottom_up": backbone, "in_features": ["res4", "res5"], "out_channels": 8}
    right = backbone.output_shape()["res5"].channels
    FPN(**parts, top_block=LastLevelP6P7(in_channels=right, out_channels=8))
    FPN(**parts, top_block=LastLevelP6P7(in_channels=8, out_channels=8, in_feature="p5"))
    with pytest.raises(ValueError, match=rf"LastLevelP6P7 takes in_channels=2048, but 'res5' has {right}"):
        FPN(**parts, top_block=LastLevelP6P7(in_channels=2048, out_channels=8))


def test_a_plain_transformer_needs_another_pyramid():
    pytest.importorskip("timm")
    with torch.device("meta"):
        backbone = TimmBackbone(model_name="vit_tiny_patch16_224")
        with pytest.raises(ValueError, match="all of stride 16: SimpleFeaturePyramid"):
            FPN(bottom_up=backbone, in_features=["res4"], out_channels=8)
        assert list(TimmBackbone(model_name="vit_tiny_patch16_224", out_indices=[-1]).output_shape()) == [
            "res4"
        ]


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6, 7])
def test_inflation_preserves_the_sum(channels):
    torch.manual_seed(0)
    state = {
        "bias": torch.randn(4),
        "stem.weight": torch.randn(4, 3, 5, 5),
        "next.weight": torch.randn(4, 4, 3, 3),
    }
    output = inflate_input_weights(state, channels)
    assert output["stem.weight"].shape == (4, channels, 5, 5)
    torch.testing.assert_close(output["stem.weight"].sum(1), state["stem.weight"].sum(1))
    assert output["next.weight"] is state["next.weight"] and state["stem.weight"].shape[1] == 3


def test_inflation_repeats_colors():
    weight = torch.randn(2, 3, 1, 1)
    output = inflate_input_weights({"w": weight}, 6, key="w")["w"]
    torch.testing.assert_close(output, torch.cat([weight, weight], dim=1) / 2)
    four = inflate_input_weights({"w": weight}, 4)["w"]
    torch.testing.assert_close(four[:, 1:3], weight[:, 1:])
    torch.testing.assert_close(four[:, 0] + four[:, 3], weight[:, 0])


def test_inflation_errors():
    with pytest.raises(ValueError, match="pass its name as key"):
        inflate_input_weights({"w": torch.zeros(2, 4, 1, 1)}, 4)
    with pytest.raises(ValueError, match="has no weight 'z'"):
        inflate_input_weights({"w": torch.zeros(2, 3, 1, 1)}, 4, key="z")
    with pytest.raises(ValueError, match="at least one channel"):
        inflate_input_weights({"w": torch.zeros(2, 3, 1, 1)}, 0)
