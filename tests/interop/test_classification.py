"""Classifiers of torchvision and timm in hydet's own backbones, with equal features."""

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn
from torchvision import models

import hydet
from hydet.engine import init_from
from hydet.interop import read_foreign
from hydet.modeling import TimmBackbone, TorchvisionBackbone


class Around(nn.Module):
    """A model whose backbone is nested, as below an FPN."""

    def __init__(self, bottom_up):
        super().__init__()
        self.backbone = nn.ModuleDict({"bottom_up": bottom_up})


def save(network, folder):
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    path = folder / "classifier.pth"
    torch.save(network.eval().state_dict(), path)
    return path


def build(path, *overrides):
    foreign = read_foreign(path).model.overrides
    backbone = hydet.instantiate(hydet.compose("data=coco_instance", *foreign, *overrides).backbone)
    report = init_from(Around(backbone), path)
    assert not report.missing and all(".linear." in f".{name}" for name in report.unexpected)
    return backbone.eval()


IMAGE = (2, 3, 64, 96)


@pytest.mark.parametrize(
    "make",
    [
        lambda: models.resnet18(),
        lambda: models.resnet50(width_per_group=16),
        lambda: models.ResNet(models.resnet.Bottleneck, [3, 4, 6, 3], groups=32, width_per_group=2),
        lambda: timm.create_model("resnet26", layers=(3, 4, 6, 3), base_width=16),
    ],
    ids=["resnet18", "resnet50", "resnext50", "timm"],
)
def test_features_of_resnets_are_equal(make, tmp_path):
    torch.manual_seed(0)
    theirs, x = make(), torch.randn(IMAGE)
    ours = build(save(theirs, tmp_path))
    with torch.no_grad():
        results = ours(x)
        relu = getattr(theirs, "relu", None) or theirs.act1
        x = theirs.maxpool(relu(theirs.bn1(theirs.conv1(x))))
        for i in range(1, 5):
            x = getattr(theirs, f"layer{i}")(x)
            torch.testing.assert_close(results[f"res{i + 1}"], x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["regnet_x_400mf", "regnet_y_400mf"])
def test_features_of_regnets_are_equal(name, tmp_path):
    torch.manual_seed(0)
    theirs, x = models.get_model(name), torch.randn(IMAGE)
    ours = build(save(theirs, tmp_path))
    with torch.no_grad():
        results = ours(x)
        x = theirs.stem(x)
        for i, stage in enumerate(theirs.trunk_output, start=1):
            x = stage(x)
            torch.testing.assert_close(results[f"s{i}"], x, rtol=1e-4, atol=1e-4)


def test_features_of_swin_transformers_are_equal(tmp_path):
    torch.manual_seed(0)
    theirs = models.SwinTransformer([4, 4], 24, [2, 2, 2, 2], [1, 2, 4, 8], [4, 4])
    path, x = save(theirs, tmp_path), torch.randn(1, 3, 288, 192)  # 9 x 6 tokens in the last stage
    foreign = read_foreign(path).model.overrides
    ours = hydet.instantiate(hydet.compose("data=coco_instance", *foreign).backbone).eval()
    report = init_from(Around(ours), path)
    # A classifier has no norms for the outputs of its first three stages.
    assert {name.split(".")[2] for name in report.missing} == {"norm0", "norm1", "norm2"}
    with torch.no_grad():
        results = ours(x)
        for i, part in enumerate(theirs.features):
            x = part(x)
            if i % 2 == 1:
                norm = theirs.norm if i == 7 else lambda x: F.layer_norm(x, x.shape[-1:])
                expected = norm(x).permute(0, 3, 1, 2)
                torch.testing.assert_close(results[f"p{i // 2}"], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "make",
    [lambda: TorchvisionBackbone(model_name="resnet18"), lambda: TimmBackbone(model_name="resnet18")],
    ids=["torchvision", "timm"],
)
def test_adapters_keep_the_names_of_the_file(make, tmp_path):
    theirs = models.resnet18()
    model = Around(make())
    report = init_from(model, save(theirs, tmp_path))
    assert not (report.missing or report.mismatched) and set(report.unexpected) == {"fc.weight", "fc.bias"}
    assert torch.equal(
        model.backbone["bottom_up"].model.layer1[0].conv1.weight, theirs.layer1[0].conv1.weight
    )
    assert torch.equal(model.backbone["bottom_up"].model.conv1.weight, theirs.conv1.weight)
