"""Mask R-CNN R50-FPN of torchvision, the same network from hydet's parts, and the translation of its weights."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn
from torchvision.models.detection import maskrcnn_resnet50_fpn

from hydet.interop import torchvision_detection
from hydet.layers import ShapeSpec
from hydet.modeling import (
    FPN,
    RPN,
    Box2BoxTransform,
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
    GeneralizedRCNN,
    LastLevelMaxPool,
    MaskRCNNConvUpsampleHead,
    Matcher,
    ROIPooler,
    RoundedAnchorGenerator,
    StandardROIHeads,
    StandardRPNHead,
    make_resnet,
)

NUM_CLASSES = 80  # without background
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def build_torchvision() -> nn.Module:
    """Build torchvision's model with random weights and without resizing of its input."""
    model = maskrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=NUM_CLASSES + 1,
        rpn_pre_nms_top_n_train=2000,
        rpn_post_nms_top_n_train=2000,
        rpn_pre_nms_top_n_test=1000,
        rpn_post_nms_top_n_test=1000,
    )
    model.transform.resize = lambda image, target=None: (image, target)
    return model


def build_hydet() -> GeneralizedRCNN:
    """Build the same network from hydet's parts."""
    features, scales = ["p2", "p3", "p4", "p5"], [1 / 4, 1 / 8, 1 / 16, 1 / 32]

    def pooler(size: int) -> ROIPooler:
        return ROIPooler(output_size=size, scales=scales, sampling_ratio=2, pooler_type="ROIAlign")

    bottom_up = make_resnet(
        depth=50,
        norm="BN",
        stride_in_1x1=False,
        freeze_at=0,
        out_features=["res2", "res3", "res4", "res5"],
    )
    return GeneralizedRCNN(
        backbone=FPN(
            bottom_up=bottom_up,
            in_features=["res2", "res3", "res4", "res5"],
            out_channels=256,
            top_block=LastLevelMaxPool(),
        ),
        proposal_generator=RPN(
            in_features=[*features, "p6"],
            head=StandardRPNHead(in_channels=256, num_anchors=3),
            anchor_generator=RoundedAnchorGenerator(
                sizes=[[32], [64], [128], [256], [512]],
                aspect_ratios=[[0.5, 1.0, 2.0]],
                strides=[4, 8, 16, 32, 64],
                offset=0.0,
            ),
            anchor_matcher=Matcher(thresholds=[0.3, 0.7], labels=[0, -1, 1], allow_low_quality_matches=True),
            box2box_transform=Box2BoxTransform(weights=(1.0, 1.0, 1.0, 1.0)),
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_topk=(2000, 1000),
            post_nms_topk=(2000, 1000),
            nms_thresh=0.7,
            smooth_l1_beta=1 / 9,
        ),
        roi_heads=StandardROIHeads(
            num_classes=NUM_CLASSES,
            batch_size_per_image=512,
            positive_fraction=0.25,
            proposal_matcher=Matcher(thresholds=[0.5], labels=[0, 1]),
            box_in_features=features,
            box_pooler=pooler(7),
            box_head=FastRCNNConvFCHead(
                input_shape=ShapeSpec(channels=256, height=7, width=7), conv_dims=[], fc_dims=[1024, 1024]
            ),
            box_predictor=FastRCNNOutputLayers(
                input_shape=ShapeSpec(channels=1024),
                box2box_transform=Box2BoxTransform(weights=(10.0, 10.0, 5.0, 5.0)),
                num_classes=NUM_CLASSES,
                smooth_l1_beta=1 / 9,
            ),
            mask_in_features=features,
            mask_pooler=pooler(14),
            mask_head=MaskRCNNConvUpsampleHead(
                input_shape=ShapeSpec(channels=256, height=14, width=14),
                num_classes=NUM_CLASSES,
                conv_dims=[256] * 5,  # the last entry is the transposed convolution
            ),
        ),
        pixel_mean=[255 * m for m in MEAN],
        pixel_std=[255 * s for s in STD],
        input_format="RGB",
    )


def translate(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Translate torchvision's state dict."""
    return dict(torchvision_detection.convert(Path("maskrcnn_resnet50_fpn"), weights, {}).tensors)
