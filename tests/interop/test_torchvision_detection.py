"""Detectors of torchvision with random weights: saved, read, built in hydet, and compared with torchvision's inference."""

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import resnet18, resnet50
from torchvision.models.detection import (
    FCOS,
    FasterRCNN,
    KeypointRCNN,
    MaskRCNN,
    RetinaNet,
    fasterrcnn_resnet50_fpn,
    fasterrcnn_resnet50_fpn_v2,
    fcos_resnet50_fpn,
    keypointrcnn_resnet50_fpn,
    maskrcnn_resnet50_fpn,
    maskrcnn_resnet50_fpn_v2,
    retinanet_resnet50_fpn,
    retinanet_resnet50_fpn_v2,
)
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops.feature_pyramid_network import LastLevelP6P7
from torchvision.ops.misc import FrozenBatchNorm2d

import hydet
from hydet.interop import read_foreign, torchvision_detection
from hydet.interop.coco_names import coco_names

C = 32  # channels of slim models
CATEGORIES = coco_names()  # id -> name
UNUSED = [i for i in range(91) if i not in CATEGORIES]


def slim_pyramid(num_levels=4, p6_channels=None, norm=None, frozen=False):
    layers = range(5 - num_levels, 5)
    return BackboneWithFPN(
        resnet18(norm_layer=FrozenBatchNorm2d if frozen else None),
        {f"layer{layer}": str(i) for i, layer in enumerate(layers)},
        [64 * 2 ** (layer - 1) for layer in layers],
        C,
        extra_blocks=None if p6_channels is None else LastLevelP6P7(p6_channels, C),
        norm_layer=norm,
    )


def slim_rcnn(model_class, version, num_classes=91, frozen=False, **parts):
    norm = nn.BatchNorm2d if version == 2 else None
    return model_class(
        slim_pyramid(norm=norm, frozen=frozen),
        rpn_head=RPNHead(C, 3, conv_depth=version),
        box_head=FastRCNNConvFCHead((C, 7, 7), [C] * 2, [64], norm) if norm else TwoMLPHead(C * 49, 64),
        box_predictor=FastRCNNPredictor(64, num_classes),
        **parts,
    )


def slim_mask_rcnn(version, num_classes=91):
    norm = nn.BatchNorm2d if version == 2 else None
    head, predictor = MaskRCNNHeads(C, (C, C), 1, norm), MaskRCNNPredictor(C, C, num_classes)
    return slim_rcnn(MaskRCNN, version, num_classes, mask_head=head, mask_predictor=predictor)


def slim_keypoint_rcnn():
    head, predictor = KeypointRCNNHeads(C, (C, C)), KeypointRCNNPredictor(C, 17)
    return slim_rcnn(KeypointRCNN, 1, 2, keypoint_head=head, keypoint_predictor=predictor)


def slim_retinanet(version, num_classes=91):
    norm = partial(nn.GroupNorm, 32) if version == 2 else None
    pyramid = slim_pyramid(3, 512 if version == 2 else C)  # P6 from C5 or P5
    return RetinaNet(pyramid, num_classes, head=RetinaNetHead(C, 9, num_classes, norm))


SLIM = {
    "Faster R-CNN": partial(slim_rcnn, FasterRCNN, 1),
    "Mask R-CNN v2": partial(slim_mask_rcnn, 2),
    "Keypoint R-CNN": slim_keypoint_rcnn,
    "RetinaNet": partial(slim_retinanet, 1),
    "RetinaNet v2": partial(slim_retinanet, 2),
    "FCOS": lambda: FCOS(slim_pyramid(3, C), 91),
}
FULL = [
    fasterrcnn_resnet50_fpn,
    fasterrcnn_resnet50_fpn_v2,
    maskrcnn_resnet50_fpn,
    maskrcnn_resnet50_fpn_v2,
    keypointrcnn_resnet50_fpn,
    retinanet_resnet50_fpn,
    retinanet_resnet50_fpn_v2,
    fcos_resnet50_fpn,
]

WITHIN = {"rtol": 0, "atol": 1e-4}

# Standard deviations that let random models detect with small deltas, as trained ones do.
SCALES = {
    "box_predictor.cls_score.weight": 0.5,
    "box_predictor.bbox_pred.weight": 0.1,
    "rpn.head.cls_logits.weight": 0.2,
    "rpn.head.bbox_pred.weight": 0.002,
    "classification_head.cls_logits.weight": 0.05,
    "regression_head.bbox_reg.weight": 0.002,
    "regression_head.bbox_ctrness.weight": 0.05,
    "mask_predictor.mask_fcn_logits.weight": 0.3,
}


@torch.no_grad()
def randomize(model, images):
    """Give norms the statistics of the images, and predictors weights that lead to detections of the used classes."""
    model.transform.resize = lambda image, target=None: (image, target)  # hydet resizes outside of its models
    batch, _ = model.transform(images)
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            if name.endswith(
                "bn3"
            ):  # each block changes its input a little, or rounding grows from block to block
                module.weight.fill_(0.2)
    model.train().backbone(batch.tensors)
    model.eval()
    for name, parameter in model.named_parameters():
        scale = next((scale for end, scale in SCALES.items() if name.endswith(end)), None)
        if scale is not None:
            fan_in = parameter[0].numel() / (64 if "box_predictor" in name else C)
            parameter.normal_(0, scale / fan_in**0.5)
        elif "_head.conv" in name and parameter.ndim == 4:  # torchvision initializes them close to 0
            nn.init.kaiming_normal_(parameter)
        elif name.endswith("bbox_reg.bias") and isinstance(model, FCOS):
            parameter.fill_(1.5)  # distances in strides
        # Rows of categories that do not exist never win in trained models. A classifier without them gives other scores
        # to the rest if they do, because of the softmax.
        elif name.endswith(("cls_score.bias", "classification_head.cls_logits.bias")):
            if parameter.numel() % 91 == 0:
                foreground = UNUSED[1:] if "cls_score" in name else UNUSED
                parameter.view(-1, 91)[:, foreground] = -1e4
            if "classification_head" in name:
                parameter.clamp_(max=-2.0)
                parameter.copy_(torch.where(parameter > -100, -2.0, parameter))
    return model


def make_images(sizes):
    torch.manual_seed(0)
    coarse = [torch.rand(1, 3, height // 8, width // 8) for height, width in sizes]
    images = [
        nn.functional.interpolate(x, size, mode="bicubic")[0] for x, size in zip(coarse, sizes, strict=True)
    ]
    return [(image.clamp(0, 1) * 255).round().to(torch.uint8) for image in images]


def read_and_build(model, folder):
    """Save the state dict of a model, read it, and build the model that the file describes."""
    path = folder / "model.pth"
    torch.save(model.state_dict(), path)
    weights = read_foreign(path)
    assert weights.format == "torchvision" and not weights.skipped
    config = hydet.compose(*weights.model.overrides)
    built = hydet.instantiate(config.model).eval()
    built.load_state_dict(dict(weights.tensors))
    return weights, built, config


def matches(boxes, classes, result):
    """Return the detection of each box; the order of detections with nearly equal scores depends on rounding."""
    distance = (boxes[:, None] - result.pred_boxes.tensor).abs().amax(dim=2)
    distance[classes[:, None] != result.pred_classes] = torch.inf
    order = distance.argmin(dim=1)
    assert sorted(order.tolist()) == list(range(len(result)))
    return order


def compare(model, tmp_path, sizes):
    images = make_images(sizes)
    inputs = [image.float() / 255 for image in images]
    model = randomize(model, inputs)
    weights, ours, config = read_and_build(model, tmp_path)
    unpasted = []
    if hasattr(model, "roi_heads"):
        model.roi_heads.register_forward_hook(lambda _, __, out: unpasted.extend(dict(r) for r in out[0]))
    with torch.no_grad():
        expected = model(inputs)
        batch = [{"image": image} for image in images]
        results = [result["instances"] for result in ours.inference(batch)]
        raw = ours.inference(batch, do_postprocess=False)
    assert sum(len(r) for r in results) > 20
    names = list(config.data.class_names)
    for i, (theirs, result) in enumerate(zip(expected, results, strict=True)):
        # hydet drops boxes without area, which torchvision's dense detectors return.
        filled = (theirs["boxes"][:, 2:] > theirs["boxes"][:, :2]).all(dim=1)
        labels = theirs["labels"][filled].tolist()
        their_names = ["person"] * len(labels) if "keypoints" in theirs else [CATEGORIES[k] for k in labels]
        their_classes = torch.tensor([names.index(name) for name in their_names])
        order = matches(theirs["boxes"][filled], their_classes, result)
        result = result[order]
        assert torch.equal(result.pred_classes, their_classes)
        torch.testing.assert_close(result.pred_boxes.tensor, theirs["boxes"][filled], **WITHIN)
        torch.testing.assert_close(result.scores, theirs["scores"][filled], **WITHIN)
        if "masks" in theirs:  # both paste them, in different ways
            torch.testing.assert_close(raw[i].pred_masks[order], unpasted[i]["masks"], **WITHIN)
        if "keypoints" in theirs:  # their scores are logits in torchvision and probabilities in hydet
            ours_xy, theirs_xy = result.pred_keypoints[..., :2], theirs["keypoints"][..., :2]
            torch.testing.assert_close(ours_xy, theirs_xy, **WITHIN)
    return weights


@pytest.mark.parametrize("name", SLIM)
def test_results_equal_those_of_torchvision(name, tmp_path):
    torch.manual_seed(0)
    compare(SLIM[name](), tmp_path, [(96, 128), (80, 104)])


@pytest.mark.weights
@pytest.mark.parametrize("make", FULL, ids=lambda make: make.__name__)
def test_results_of_published_sizes_equal_those_of_torchvision(make, tmp_path):
    torch.manual_seed(0)
    compare(make(weights=None, weights_backbone=None), tmp_path, [(256, 320), (200, 280)])


def test_classes_are_those_of_coco():
    names = hydet.compose("data=coco_instance").data.class_names
    assert list(CATEGORIES.values()) == list(names)


def meta(make, **options):
    with torch.device("meta"):
        return make(**options).state_dict()


def convert(tensors):
    return torchvision_detection.convert(Path("model.pth"), tensors, {})


def test_names_of_old_versions_of_torchvision_convert_as_well():
    new = meta(slim_mask_rcnn, version=1)
    old = {
        name.replace("_blocks.0.0.", "_blocks.0.")
        .replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        .replace("mask_head.0.0.", "mask_head.mask_fcn1."): tensor
        for name, tensor in new.items()
    }
    assert set(old) != set(new)
    assert set(convert(old).tensors) == set(convert(new).tensors)
    assert convert(old).model == convert(new).model
    new = meta(slim_retinanet, version=1)
    old = {
        name.replace("conv.1.0.", "conv.2."): tensor for name, tensor in new.items() if "conv.2.0" not in name
    }
    assert set(convert(old).tensors) <= set(convert(new).tensors)


def test_other_classes_keep_all_rows():
    weights = convert(meta(slim_mask_rcnn, version=2, num_classes=6))
    assert weights.model.class_names == () and "num_classes=5" in weights.model.overrides
    assert weights.tensors["roi_heads.box_predictor.cls_score.weight"].shape == (6, 64)
    assert weights.tensors["roi_heads.box_predictor.bbox_pred.weight"].shape == (20, 64)
    assert weights.tensors["roi_heads.mask_head.predictor.weight"].shape[0] == 5
    weights = convert(meta(slim_retinanet, version=1, num_classes=6))
    assert weights.tensors["head.cls_score.weight"].shape[0] == 9 * 6
    assert "num_classes=6" in weights.model.overrides


def test_frozen_norms_of_published_weights_have_no_epsilon():
    theirs = slim_rcnn(FasterRCNN, 1, frozen=True).eval()
    for module in theirs.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.running_var.uniform_(1e-4, 1e-3)
    overwrite_eps(theirs, 0.0)
    weights = convert(theirs.state_dict())
    assert "norm=FrozenBN" in weights.model.overrides
    name = "backbone.bottom_up.stem.conv1.norm.running_var"
    torch.testing.assert_close(weights.tensors[name] + 1e-5, theirs.backbone.body.bn1.running_var)
    other = convert(slim_rcnn(FasterRCNN, 1, num_classes=6, frozen=True).state_dict())
    assert torch.equal(other.tensors[name], torch.ones(64))  # not published, so with the usual epsilon


def test_other_backbones_are_refused():
    tensors = meta(slim_rcnn, model_class=FasterRCNN, version=1)
    tensors = {name.replace("layer1.0.", "layer1.0.se."): tensor for name, tensor in tensors.items()}
    assert torchvision_detection.fits(tensors)
    with pytest.raises(ValueError, match=r"model\.pth: a detector of torchvision with another backbone"):
        convert(tensors)


def test_groups_and_widths_follow_from_the_shapes():
    def resnext(depth, groups, width):
        body = resnet50(groups=groups, width_per_group=width)
        layers = {f"layer{i}": str(i - 1) for i in range(1, 5)}
        return FasterRCNN(BackboneWithFPN(body, layers, [256, 512, 1024, 2048], C), 4)

    overrides = convert(meta(resnext, depth=50, groups=32, width=4)).model.overrides
    assert {"backbone=r50", "backbone.num_groups=32", "backbone.width_per_group=4"} <= set(overrides)
    assert "backbone.stride_in_1x1=false" in overrides
