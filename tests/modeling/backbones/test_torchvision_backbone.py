import pytest
import torch
from torch import nn

from hydet.modeling import TorchvisionBackbone

TORCHVISION = [
    "resnet18",
    "mobilenet_v3_small",
    "convnext_tiny",
    "swin_t",
    "regnet_y_400mf",
    "efficientnet_b0",
]


@pytest.mark.parametrize("name", TORCHVISION)
@torch.no_grad()
def test_features_have_declared_shapes(name, check_declared_shapes):
    # torchvision's RegNet reads values of tensors, so it does not build on the meta device.
    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        backbone = TorchvisionBackbone(model_name=name).to("meta")
    assert {n: s.stride for n, s in backbone.output_shape().items()} == {
        "res2": 4,
        "res3": 8,
        "res4": 16,
        "res5": 32,
    }
    check_declared_shapes(backbone)


def test_keeps_weight_names_and_drops_unused_segments():
    from torchvision.models import resnet18

    model = resnet18()
    weights = model.state_dict()
    backbone = TorchvisionBackbone(model=model, out_features=["res3"])
    names = [name.removeprefix("model.") for name in backbone.state_dict()]
    assert set(names) < set(weights)
    assert not any(name.startswith(("layer3", "layer4", "fc")) for name in names)


@torch.no_grad()
def test_features_equal_those_of_the_network():
    from torchvision.models import resnet18

    torch.manual_seed(0)
    model = resnet18().eval()
    images = torch.randn(1, 3, 32, 32)
    x = model.layer2(model.layer1(model.maxpool(model.relu(model.bn1(model.conv1(images))))))
    traced = TorchvisionBackbone(model=model, return_nodes={"layer2": "mine", "layer1": "other"}).eval()
    assert traced.output_shape()["mine"].stride == 8
    torch.testing.assert_close(traced(images)["mine"], x)
    torch.testing.assert_close(TorchvisionBackbone(model=model).eval()(images)["res3"], x)


def test_freeze_norm_keeps_statistics_and_trains_convolutions():
    backbone = TorchvisionBackbone(model_name="resnet18", freeze_norm=True).train()
    before = backbone.model.bn1.running_mean.clone()
    backbone(torch.randn(2, 3, 32, 32))["res5"].sum().backward()
    assert torch.equal(backbone.model.bn1.running_mean, before)
    assert backbone.model.bn1.weight.grad is None and backbone.model.conv1.weight.grad is not None


def test_builds_on_meta_device_and_compiles():
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
def test_invalid_arguments_raise(options, message):
    with pytest.raises(ValueError, match=message):
        TorchvisionBackbone(**options)
