"""Backbones and necks of mmdet, and other networks that return lists, in hydet's detectors."""

import pytest
import torch
from torch import nn

import hydet
from hydet.layers import ShapeSpec
from hydet.modeling import (
    Box2BoxTransform,
    DefaultAnchorGenerator,
    Matcher,
    MMDetBackbone,
    RetinaNet,
    RetinaNetHead,
)

from .conftest import BACKBONE, CLASSES, NECK, PIXELS, make_input

SHAPES = [ShapeSpec(channels=4, stride=2), ShapeSpec(channels=6, stride=4)]


class Stages(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 2, stride=2), nn.Conv2d(4, 6, 2, stride=2)

    def forward(self, x):
        x = self.first(x)
        return [x, self.second(x)]


class Swapped(nn.Module):
    def forward(self, features):
        return tuple(reversed(features))


def test_built_network_works_without_mmdet():
    stages = Stages()
    weights = stages.first.weight.clone()
    backbone = MMDetBackbone(backbone=stages, output_shapes=SHAPES)
    assert torch.equal(stages.first.weight, weights), "a built module does not change"
    features = backbone(torch.zeros(1, 3, 8, 12))
    assert {name: tuple(x.shape) for name, x in features.items()} == {
        "out0": (1, 4, 4, 6),
        "out1": (1, 6, 2, 3),
    }
    assert backbone.output_shape() == dict(zip(("out0", "out1"), SHAPES))
    assert backbone.size_divisibility == 0 and backbone.padding_constraints == {}
    assert "backbone.first.weight" in backbone.state_dict()


def test_outputs_are_those_of_the_neck():
    backbone = MMDetBackbone(
        backbone=Stages(), neck=Swapped(), output_shapes=SHAPES[::-1], output_names=["coarse", "fine"]
    )
    features = backbone(torch.zeros(1, 3, 8, 12))
    assert list(features) == ["coarse", "fine"] and features["coarse"].shape[1] == 6


def test_output_shapes_without_channels():
    backbone = MMDetBackbone(backbone=Stages(), output_shapes=[ShapeSpec(stride=2), ShapeSpec(stride=4)])
    assert len(backbone(torch.zeros(1, 3, 8, 8))) == 2


@pytest.mark.parametrize("names", [["a"], ["a", "a"], ["a", "b", "c"]])
def test_output_names_that_do_not_match_output_shapes_raise(names):
    with pytest.raises(ValueError, match="2 output_shapes need as many different names"):
        MMDetBackbone(backbone=Stages(), output_shapes=SHAPES, output_names=names)


def test_outputs_that_do_not_match_output_shapes_raise():
    with pytest.raises(ValueError, match=r"channels \[4\], the network produces \[4, 6\]"):
        MMDetBackbone(backbone=Stages(), output_shapes=SHAPES[:1])(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match=r"channels \[6, 4\], the network produces \[4, 6\]"):
        MMDetBackbone(backbone=Stages(), output_shapes=SHAPES[::-1])(torch.zeros(1, 3, 8, 8))
    with pytest.raises(TypeError, match="a list of feature maps, got Tensor"):
        MMDetBackbone(backbone=nn.Conv2d(3, 4, 1), output_shapes=SHAPES)(torch.zeros(1, 3, 8, 8))


def train_and_infer(model, unused=()):
    batch = [make_input(), make_input(objects=0)]
    losses = model.train()(batch)
    sum(losses.values()).backward()
    inner = model.backbone if isinstance(model.backbone, MMDetBackbone) else model.backbone.bottom_up
    assert all(bool(loss.isfinite()) for loss in losses.values())
    for name, parameter in inner.named_parameters():
        assert parameter.grad is not None or name.startswith(unused), name
    assert inner.backbone.conv1.weight.grad.abs().sum() > 0
    with torch.no_grad():
        results = model.eval()(batch)
    assert [r["instances"].image_size for r in results] == [(96, 128), (96, 128)]
    return results


def test_mmdet_backbone_in_mask_rcnn(mmdet):
    cfg = hydet.compose("model=mask_rcnn_fpn", "backbone=mmdet", "data=coco_instance", "size=slim")
    cfg.backbone.backbone = {**BACKBONE, "norm_eval": True}
    for shape, channels in zip(cfg.backbone.output_shapes, NECK["in_channels"]):
        shape.channels = channels
    model = hydet.instantiate(cfg.model)
    assert model.backbone.bottom_up.output_shape()["res5"] == ShapeSpec(channels=64, stride=32)
    results = train_and_infer(model)
    assert results[0]["instances"].pred_masks.shape[1:] == (96, 128)
    assert not any(m.training for m in model.backbone.modules())
    model.train()
    norms = [m for m in model.backbone.bottom_up.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and not any(m.training for m in norms), "mmdet's norm_eval stays in effect"


def test_mmdet_backbone_and_neck_in_retinanet(mmdet):
    shapes = [ShapeSpec(channels=16, stride=s) for s in (4, 8, 16, 32, 64)]
    backbone = MMDetBackbone(
        backbone=BACKBONE, neck=NECK, output_shapes=shapes, output_names=["p2", "p3", "p4", "p5", "p6"]
    )
    names = ["p3", "p4", "p5", "p6"]
    model = RetinaNet(
        backbone=backbone,
        head=RetinaNetHead(input_shape=shapes[1:], num_classes=CLASSES, num_anchors=3, conv_dims=[16]),
        head_in_features=names,
        anchor_generator=DefaultAnchorGenerator(
            sizes=[[32], [64], [96], [128]], aspect_ratios=[[0.5, 1.0, 2.0]], strides=[8, 16, 32, 64]
        ),
        box2box_transform=Box2BoxTransform(weights=(1.0,) * 4),
        anchor_matcher=Matcher([0.4, 0.5], [0, -1, 1], allow_low_quality_matches=True),
        num_classes=CLASSES,
        **PIXELS,
    )
    train_and_infer(model, unused=("neck.fpn_convs.0", "neck.lateral_convs.0"))  # no head reads p2
