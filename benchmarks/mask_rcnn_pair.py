"""Mask R-CNN R50-FPN of torchvision, the same network from hydet's parts, and the translation of its weights."""

from __future__ import annotations

import re

from torch import Tensor, nn
from torchvision.models.detection import maskrcnn_resnet50_fpn

from hydet.layers import ShapeSpec
from hydet.modeling import (
    FPN,
    RPN,
    Box2BoxTransform,
    DefaultAnchorGenerator,
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
    GeneralizedRCNN,
    LastLevelMaxPool,
    MaskRCNNConvUpsampleHead,
    Matcher,
    ROIPooler,
    StandardROIHeads,
    StandardRPNHead,
    make_resnet,
)

NUM_CLASSES = 90  # without background
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# Patterns of torchvision's state dict names and the names of the same tensors in hydet.
NAMES = [
    (r"backbone\.body\.conv1\.", "backbone.bottom_up.stem.conv1."),
    (r"backbone\.body\.bn1\.", "backbone.bottom_up.stem.conv1.norm."),
    (r"backbone\.body\.layer(\d)\.", lambda m: f"backbone.bottom_up.res{int(m[1]) + 1}."),
    (r"(res\d\.\d+)\.bn(\d)\.", r"\1.conv\2.norm."),
    (r"\.downsample\.0\.", ".shortcut."),
    (r"\.downsample\.1\.", ".shortcut.norm."),
    (r"fpn\.inner_blocks\.(\d)\.0\.", lambda m: f"fpn_lateral{int(m[1]) + 2}."),
    (r"fpn\.layer_blocks\.(\d)\.0\.", lambda m: f"fpn_output{int(m[1]) + 2}."),
    (r"^rpn\.head\.conv\.0\.0\.", "proposal_generator.rpn_head.conv."),
    (r"^rpn\.head\.cls_logits\.", "proposal_generator.rpn_head.objectness_logits."),
    (r"^rpn\.head\.bbox_pred\.", "proposal_generator.rpn_head.anchor_deltas."),
    (r"box_head\.fc6\.", "box_head.fc1."),
    (r"box_head\.fc7\.", "box_head.fc2."),
    (r"mask_head\.(\d)\.0\.", lambda m: f"mask_head.mask_fcn{int(m[1]) + 1}."),
    (r"mask_predictor\.conv5_mask\.", "mask_head.deconv."),
    (r"mask_predictor\.mask_fcn_logits\.", "mask_head.predictor."),
]


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
            anchor_generator=DefaultAnchorGenerator(
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
    """Translate torchvision's state dict; its background is class 0, and hydet's is the last class."""
    translated = {}
    for name, tensor in weights.items():
        for pattern, ours in NAMES:
            name = re.sub(pattern, ours, name)
        if "box_predictor.cls_score" in name:
            tensor = tensor.roll(-1, dims=0)
        elif "box_predictor.bbox_pred" in name:
            tensor = tensor[4:]
        elif "mask_head.predictor" in name:
            tensor = tensor[1:]
        translated[name] = tensor
    return translated
