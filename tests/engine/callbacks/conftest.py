"""Real detectors that are small enough to train a few steps in a test."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from hydet.layers import ShapeSpec
from hydet.modeling import (
    RPN,
    Backbone,
    Box2BoxTransform,
    DefaultAnchorGenerator,
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
    GeneralizedRCNN,
    MaskRCNNConvUpsampleHead,
    Matcher,
    ProposalNetwork,
    RetinaNet,
    RetinaNetHead,
    ROIPooler,
    SemanticSegmentor,
    SemSegFPNHead,
    StandardROIHeads,
    StandardRPNHead,
)
from hydet.structures import BitMasks, Boxes, Instances

CLASSES, LABELS, HEIGHT, WIDTH = 2, 3, 64, 96


class TinyBackbone(Backbone):
    """One feature map of stride 8."""

    size_divisibility = 8

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 8, stride=8)

    def output_shape(self):
        return {"p3": ShapeSpec(channels=8, stride=8)}

    def forward(self, x):
        return {"p3": self.conv(x).relu()}


def make_anchors():
    return DefaultAnchorGenerator(sizes=[[24]], aspect_ratios=[[1.0]], strides=[8])


def make_rpn():
    return RPN(
        in_features=["p3"],
        head=StandardRPNHead(in_channels=8, num_anchors=1),
        anchor_generator=make_anchors(),
        anchor_matcher=Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True),
        box2box_transform=Box2BoxTransform(weights=(1.0, 1.0, 1.0, 1.0)),
        batch_size_per_image=16,
        positive_fraction=0.5,
        pre_nms_topk=(50, 50),
        post_nms_topk=(30, 30),
    )


def make_roi_heads(mask_norm="", vis_period=0):
    def pooler(size):
        return ROIPooler(output_size=size, scales=[1 / 8], sampling_ratio=0, pooler_type="ROIAlignV2")

    box_head = FastRCNNConvFCHead(
        input_shape=ShapeSpec(channels=8, height=4, width=4), conv_dims=[], fc_dims=[16]
    )
    return StandardROIHeads(
        num_classes=CLASSES,
        batch_size_per_image=16,
        positive_fraction=0.5,
        proposal_matcher=Matcher([0.5], [0, 1]),
        box_in_features=["p3"],
        box_pooler=pooler(4),
        box_head=box_head,
        box_predictor=FastRCNNOutputLayers(
            input_shape=ShapeSpec(channels=16),
            box2box_transform=Box2BoxTransform(weights=(10.0, 10.0, 5.0, 5.0)),
            num_classes=CLASSES,
        ),
        mask_in_features=["p3"],
        mask_pooler=pooler(4),
        mask_head=MaskRCNNConvUpsampleHead(
            input_shape=ShapeSpec(channels=8, height=4, width=4),
            num_classes=CLASSES,
            conv_dims=[8, 8],
            conv_norm=mask_norm,
            vis_period=vis_period,
        ),
    )


def make_detector(kind, vis_period, norm=""):
    """Build a model: ``mask_rcnn``, ``fast_rcnn``, ``rpn``, ``retinanet`` or ``semantic``."""
    torch.manual_seed(0)
    options = {
        "backbone": TinyBackbone(),
        "pixel_mean": [100.0] * 3,
        "pixel_std": [50.0] * 3,
        "input_format": "BGR",
        "vis_period": vis_period,
    }
    if kind == "mask_rcnn":
        roi_heads = make_roi_heads(norm, vis_period)
        return GeneralizedRCNN(proposal_generator=make_rpn(), roi_heads=roi_heads, **options)
    if kind == "fast_rcnn":
        return GeneralizedRCNN(proposal_generator=None, roi_heads=make_roi_heads(norm), **options)
    if kind == "rpn":
        return ProposalNetwork(proposal_generator=make_rpn(), **options)
    if kind == "semantic":
        head = SemSegFPNHead(
            input_shape={"p3": ShapeSpec(channels=8, stride=8)},
            num_classes=LABELS,
            conv_dims=8,
            common_stride=8,
            norm=norm,
            ignore_value=255,
        )
        return SemanticSegmentor(sem_seg_head=head, **options)
    head = RetinaNetHead(
        input_shape=[ShapeSpec(channels=8)], num_classes=CLASSES, num_anchors=1, conv_dims=[8], norm=norm
    )
    return RetinaNet(
        head=head,
        head_in_features=["p3"],
        anchor_generator=make_anchors(),
        box2box_transform=Box2BoxTransform(weights=(1.0, 1.0, 1.0, 1.0)),
        anchor_matcher=Matcher([0.4, 0.5], [0, -1, 1], allow_low_quality_matches=True),
        num_classes=CLASSES,
        test_score_thresh=0.0,
        **options,
    )


def make_batch(num_objects=2):
    torch.manual_seed(1)
    boxes = torch.tensor([[8.0, 8.0, 32.0, 32.0], [50.0, 20.0, 80.0, 50.0]])[:num_objects]
    masks = torch.zeros(num_objects, HEIGHT, WIDTH, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = True
    size = (HEIGHT, WIDTH)
    instances = Instances(
        size, gt_boxes=Boxes(boxes), gt_classes=torch.arange(num_objects), gt_masks=BitMasks(masks)
    )
    entry = {
        "image": torch.randint(0, 256, (3, *size), dtype=torch.uint8),
        "instances": instances,
        "sem_seg": torch.randint(0, LABELS, size),
        "proposals": Instances(size, proposal_boxes=Boxes(torch.cat([boxes + 1, boxes - 1]))),
    }
    return [entry, dict(entry)]


@pytest.fixture
def detectors():
    """Functions that build models and batches."""
    return SimpleNamespace(make=make_detector, batch=make_batch)
