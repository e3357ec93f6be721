"""Detectors on backbones of timm and torchvision, composed as by the command line."""

import pytest
import torch

import hydet
from hydet.structures import BitMasks, Boxes, Instances

SMALL = [
    "size.pyramid_channels=16",
    "size.fc_channels=16",
    "size.dense_conv_dims=[16]",
    "size.mask_conv_dims=[8,8]",
]
VIT = ["backbone.out_indices=[-1]", "+backbone.model_options.depth=2", "model.backbone.square_pad=64"]


@pytest.mark.parametrize(
    ("model", "library", "name", "channels", "more"),
    [
        ("retinanet", "timm", "convnext_atto", 3, []),
        ("retinanet", "torchvision", "mobilenet_v3_small", 1, []),
        ("faster_rcnn_fpn", "timm", "mobilenetv3_small_050", 4, []),
        ("mask_rcnn_vitdet", "timm", "vit_tiny_patch16_224", 3, VIT),
    ],
)
def test_model_trains_and_runs_with_a_backbone_of_another_library(model, library, name, channels, more):
    if library == "timm":
        pytest.importorskip("timm")
    options = [
        f"model={model}",
        "data=shapes",
        f"backbone={library}",
        f"backbone.model_name={name}",
        *SMALL,
        *more,
    ]
    if channels != 3:
        numbers = ",".join(["100"] * channels)
        options += [f"backbone.in_channels={channels}", f"pixel_mean=[{numbers}]", f"pixel_std=[{numbers}]"]
    built = hydet.instantiate(hydet.compose(*options).model)
    if channels == 3:  # what their weights expect
        assert built.input_format == "RGB" and built.pixel_std[0] == pytest.approx(58.395)
    gt = Instances((64, 64), gt_boxes=Boxes([[8.0, 8, 40, 50]]), gt_classes=torch.tensor([1]))
    if "mask" in model:
        gt.gt_masks = BitMasks(torch.ones(1, 64, 64, dtype=torch.bool))
    image = torch.randint(0, 256, (channels, 64, 64), dtype=torch.uint8)
    batch = [{"image": image, "instances": gt}] * 2
    losses = built.train()(batch)
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())
    assert [n for n, p in built.named_parameters() if p.grad is None] == []
    with torch.no_grad():
        assert len(built.eval()(batch)) == 2
