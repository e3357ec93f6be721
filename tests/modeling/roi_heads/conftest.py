"""Small ROI heads and scenes for them."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from hydet.layers import ShapeSpec
from hydet.modeling import (
    Box2BoxTransform,
    CascadeROIHeads,
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
    KRCNNConvDeconvUpsampleHead,
    MaskRCNNConvUpsampleHead,
    Matcher,
    Res5ROIHeads,
    ROIPooler,
    StandardROIHeads,
)
from hydet.structures import BitMasks, Boxes, ImageList, Instances, Keypoints

CLASSES, KEYPOINTS, CHANNELS, STRIDES = 3, 4, 8, {"p2": 4, "p3": 8}


def pooler(size, strides=(4, 8)):
    return ROIPooler(
        output_size=size,
        scales=[1 / s for s in strides],
        sampling_ratio=0,
        pooler_type="ROIAlignV2",
        canonical_box_size=24,
        canonical_level=3,
    )


def matcher(*thresholds, labels=(0, 1)):
    return Matcher(thresholds=list(thresholds or (0.5,)), labels=list(labels))


def predictor(*, channels=16, num_classes=CLASSES, weights=(10.0, 10.0, 5.0, 5.0), **options):
    return FastRCNNOutputLayers(
        input_shape=ShapeSpec(channels=channels),
        box2box_transform=Box2BoxTransform(weights=weights),
        num_classes=num_classes,
        **options,
    )


def box_head():
    shape = ShapeSpec(channels=CHANNELS, height=4, width=4)
    return FastRCNNConvFCHead(input_shape=shape, conv_dims=[], fc_dims=[16])


def mask_parts(num_classes=CLASSES, **options):
    shape = ShapeSpec(channels=CHANNELS, height=5, width=5)
    head = MaskRCNNConvUpsampleHead(input_shape=shape, num_classes=num_classes, conv_dims=[8, 8], **options)
    return {"mask_in_features": list(STRIDES), "mask_pooler": pooler(5), "mask_head": head}


def keypoint_parts(**options):
    shape = ShapeSpec(channels=CHANNELS, height=5, width=5)
    head = KRCNNConvDeconvUpsampleHead(input_shape=shape, num_keypoints=KEYPOINTS, conv_dims=[8], **options)
    return {"keypoint_in_features": list(STRIDES), "keypoint_pooler": pooler(5), "keypoint_head": head}


def standard_heads(*, num_classes=CLASSES, box=None, **options):
    settings = {
        "num_classes": num_classes,
        "batch_size_per_image": 64,
        "positive_fraction": 0.5,
        "proposal_matcher": matcher(),
        "box_in_features": list(STRIDES),
        "box_pooler": pooler(4),
        "box_head": box_head(),
        "box_predictor": predictor(num_classes=num_classes, **(box or {})),
    }
    return StandardROIHeads(**(settings | options))


def cascade_heads(*, thresholds=(0.5, 0.6, 0.7), **options):
    settings = {
        "num_classes": CLASSES,
        "batch_size_per_image": 64,
        "positive_fraction": 0.5,
        "proposal_matchers": [matcher(t) for t in thresholds],
        "box_in_features": list(STRIDES),
        "box_pooler": pooler(4),
        "box_heads": [box_head() for _ in thresholds],
        "box_predictors": [predictor(cls_agnostic_bbox_reg=True) for _ in thresholds],
    }
    return CascadeROIHeads(**(settings | options))


def res5_heads(*, mask=True, **options):
    stage = [nn.Sequential(nn.Conv2d(CHANNELS, 16, 3, stride=2, padding=1), nn.ReLU())]
    shape = ShapeSpec(channels=16, height=4, width=4)
    head = MaskRCNNConvUpsampleHead(input_shape=shape, num_classes=CLASSES, conv_dims=[8]) if mask else None
    settings = {
        "num_classes": CLASSES,
        "batch_size_per_image": 64,
        "positive_fraction": 0.5,
        "proposal_matcher": matcher(),
        "in_features": ["p3"],
        "pooler": pooler(8, (8,)),
        "res5": stage,
        "box_predictor": predictor(),
        "mask_head": head,
    }
    return Res5ROIHeads(**(settings | options))


def random_boxes(count, size, smallest=6.0):
    height, width = size
    sides = smallest + torch.rand(count, 2) * 0.5 * min(size)
    near = torch.rand(count, 2) * (torch.tensor([width, height]) - sides).clamp(min=0)
    return torch.cat([near, near + sides], dim=1)


def make_targets(size, count, *, num_classes=CLASSES, boxes=None):
    boxes = random_boxes(count, size) if boxes is None else boxes
    targets = Instances(size, gt_boxes=Boxes(boxes), gt_classes=torch.randint(num_classes, (count,)))
    y, x = torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5
    x1, y1, x2, y2 = boxes[:, :, None].unbind(1)
    masks = ((y > y1) & (y < y2))[:, :, None] & ((x > x1) & (x < x2))[:, None, :]
    targets.gt_masks = BitMasks(masks)
    inside = boxes[:, None, :2] + torch.rand(count, KEYPOINTS, 2) * (boxes[:, None, 2:] - boxes[:, None, :2])
    targets.gt_keypoints = Keypoints(torch.cat([inside, torch.full((count, KEYPOINTS, 1), 2.0)], dim=2))
    return targets


def make_proposals(targets, extra=20, copies=3):
    size, near = targets.image_size, targets.gt_boxes.tensor.repeat(copies, 1)
    boxes = torch.cat([random_boxes(extra, size), near + torch.randn_like(near)])
    boxes = Boxes(boxes)
    boxes.clip(size)
    return Instances(size, proposal_boxes=boxes, objectness_logits=torch.randn(len(boxes)))


def make_scene(counts=(3, 2), sizes=None, **options):
    """Make features, proposals and targets of a batch."""
    sizes = sizes or [(64, 80), (56, 64)][: len(counts)]
    height, width = (max(side) for side in zip(*sizes, strict=True))
    features = {
        name: torch.randn(len(sizes), CHANNELS, height // s, width // s, requires_grad=True)
        for name, s in STRIDES.items()
    }
    targets = [make_targets(size, n, **options) for size, n in zip(sizes, counts, strict=True)]
    images = ImageList(torch.zeros(len(sizes), 3, height, width), list(sizes))
    return SimpleNamespace(
        images=images, features=features, targets=targets, proposals=[make_proposals(t) for t in targets]
    )


@pytest.fixture
def make():
    """Return the functions of this file."""
    return SimpleNamespace(
        box_head=box_head,
        cascade_heads=cascade_heads,
        keypoint_parts=keypoint_parts,
        mask_parts=mask_parts,
        matcher=matcher,
        pooler=pooler,
        predictor=predictor,
        proposals=make_proposals,
        random_boxes=random_boxes,
        res5_heads=res5_heads,
        scene=make_scene,
        standard_heads=standard_heads,
        targets=make_targets,
    )
