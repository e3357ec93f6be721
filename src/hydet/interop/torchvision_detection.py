"""Detectors of torchvision with a ResNet and a feature pyramid: Faster, Mask and Keypoint R-CNN, RetinaNet and FCOS.

torchvision's models differ from published recipes in more than names. They read RGB images with ImageNet statistics,
have the stride in the 3x3 convolutions, round their anchors and measure strides from the feature maps, pool regions
without the correction of half a pixel, drop tiny boxes, and clip boxes of dense detectors before the suppression. The
classifiers of R-CNNs have background first. COCO models have a row for each of 91 category ids, of which 80 are used.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from hydet.data import DataError

from .coco_names import coco_names
from .dense_layout import add_zero_biases, sizes_before_ratios, subnet_widths
from .foreign import ForeignModel, ForeignWeights
from .resnet_layout import IMAGENET_PIXELS, batch_norm, resnet_overrides, resnet_rules
from .translation import (
    Rule,
    Translation,
    count_children,
    layer_widths,
    shifted,
    take_rows,
    translate,
)

__all__ = ["convert", "fits"]

BODY, BOTTOM_UP = "backbone.body.", "backbone.bottom_up."
PYRAMID = "backbone.fpn."
NUM_COCO_IDS = 91
NUM_RATIOS = 3
FROZEN_EPS = 1e-5  # of hydet's FrozenBatchNorm2d
ROUNDED_ANCHORS = "hydet.modeling.RoundedAnchorGenerator"

RPN_RULES: list[Rule] = [
    (r"rpn\.head\.cls_logits\.(.+)", r"proposal_generator.rpn_head.objectness_logits.\1"),
    (r"rpn\.head\.bbox_pred\.(.+)", r"proposal_generator.rpn_head.anchor_deltas.\1"),
]
ROI_RULES: list[Rule] = [
    (r"(roi_heads\.box_head\.)fc6\.(.+)", r"\1fc1.\2"),
    (r"(roi_heads\.box_head\.)fc7\.(.+)", r"\1fc2.\2"),
    (r"roi_heads\.box_predictor\.(?:cls_score|bbox_pred)\..+", r"\g<0>"),
    (r"roi_heads\.box_head\.(\d)\.0\.(.+)", shifted(r"roi_heads.box_head.conv#.\2", 1)),
    (r"roi_heads\.box_head\.(\d)\.1\.(.+)", shifted(r"roi_heads.box_head.conv#.norm.\2", 1)),
    (r"roi_heads\.mask_head\.mask_fcn(\d)\.(.+)", r"roi_heads.mask_head.mask_fcn\1.\2"),
    (r"roi_heads\.mask_head\.(\d)\.0\.(.+)", shifted(r"roi_heads.mask_head.mask_fcn#.\2", 1)),
    (r"roi_heads\.mask_head\.(\d)\.1\.(.+)", shifted(r"roi_heads.mask_head.mask_fcn#.norm.\2", 1)),
    (r"roi_heads\.mask_predictor\.conv5_mask\.(.+)", r"roi_heads.mask_head.deconv.\1"),
    (r"roi_heads\.mask_predictor\.mask_fcn_logits\.(.+)", r"roi_heads.mask_head.predictor.\1"),
    (
        r"roi_heads\.keypoint_head\.(\d+)\.(.+)",  # every second layer is a ReLU
        lambda match: f"roi_heads.keypoint_head.conv_fcn{int(match[1]) // 2 + 1}.{match[2]}",
    ),
    (r"roi_heads\.keypoint_predictor\.kps_score_lowres\.(.+)", r"roi_heads.keypoint_head.score_lowres.\1"),
]


def fits(tensors: Mapping[str, Tensor]) -> bool:
    """Return True for a detector of torchvision with a feature pyramid."""
    has_head = any(name.startswith(("rpn.head.", "head.classification_head.")) for name in tensors)
    return has_head and any(name.startswith(PYRAMID) for name in tensors)


def convert(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, object]) -> ForeignWeights:
    """Convert the state dict of a detector, from this or an older version of torchvision.

    Args:
        path: the file, for messages.
        tensors: content of the state dict.
        meta: not used, since files of torchvision hold nothing else.

    Raises:
        DataError: if hydet cannot build the backbone.
    """
    backbone = resnet_overrides(tensors, BODY)
    if backbone is None:
        raise DataError(f"{path}: a detector of torchvision with another backbone than a plain ResNet")
    is_rcnn = any(name.startswith("rpn.") for name in tensors)
    if is_rcnn:
        translation = translate(
            tensors, [*_backbone_rules(tensors), *_rpn_rules(tensors), *ROI_RULES, *_conv_fc_rules(tensors)]
        )
        model = _convert_rcnn(translation, tensors)
    else:
        translation = translate(tensors, [*_backbone_rules(tensors), *_dense_rules(tensors)])
        model = _convert_dense(translation, tensors)
    return ForeignWeights(
        path,
        "torchvision",
        translation.tensors,
        renamed=translation.renamed,
        skipped=translation.skipped,
        model=ForeignModel((*model.overrides, *backbone, *IMAGENET_PIXELS), model.class_names),
    )


def _backbone_rules(tensors: Mapping[str, Tensor]) -> list[Rule]:
    first = 6 - count_children(tensors, f"{PYRAMID}inner_blocks.")  # the coarsest level is 5
    layers = r"backbone\.fpn\.{}_blocks\.(\d)"
    rules = resnet_rules(r"backbone\.body\.", BOTTOM_UP)
    for theirs, ours in (("inner", "fpn_lateral"), ("layer", "fpn_output")):
        # Files from before torchvision 0.13 have no index below that of the level.
        rules += [
            (layers.format(theirs) + r"(?:\.0)?\.(weight|bias)", shifted(rf"backbone.{ours}#.\2", first)),
            (layers.format(theirs) + r"\.1\.(.+)", shifted(rf"backbone.{ours}#.norm.\2", first)),
        ]
    return [*rules, (r"backbone\.fpn\.extra_blocks\.(p[67]\..+)", r"backbone.top_block.\1")]


def _pyramid_overrides(tensors: Mapping[str, Tensor]) -> list[str]:
    nested = f"{PYRAMID}layer_blocks.0.0.weight"
    outputs = tensors[nested if nested in tensors else f"{PYRAMID}layer_blocks.0.weight"]
    overrides = [f"size.pyramid_channels={outputs.shape[0]}"]
    if f"{PYRAMID}layer_blocks.0.1.weight" in tensors:
        overrides.append(f"model.backbone.norm={batch_norm(tensors, f'{PYRAMID}layer_blocks.0.1.')}")
    return overrides


def _rpn_convs(tensors: Mapping[str, Tensor]) -> int:
    return count_children(tensors, "rpn.head.conv.") or 1


def _rpn_rules(tensors: Mapping[str, Tensor]) -> list[Rule]:
    head = "proposal_generator.rpn_head.conv"
    if _rpn_convs(tensors) == 1:  # without an index in files from before torchvision 0.13
        return [(r"rpn\.head\.conv(?:\.0\.0)?\.(weight|bias)", rf"{head}.\1"), *RPN_RULES]
    return [(r"rpn\.head\.conv\.(\d)\.0\.(.+)", rf"{head}.conv\1.\2"), *RPN_RULES]


def _conv_fc_rules(tensors: Mapping[str, Tensor]) -> list[Rule]:
    """Return the rules for the linear layers of a box head with convolutions: every second layer after a flattening."""
    num_convs = count_convs(tensors, "roi_heads.box_head.")
    return [
        (
            r"roi_heads\.box_head\.(\d+)\.(weight|bias)",
            lambda match: f"roi_heads.box_head.fc{(int(match[1]) - num_convs + 1) // 2}.{match[2]}",
        )
    ]


def count_convs(tensors: Mapping[str, Tensor], prefix: str) -> int:
    """Return the number of units ``prefix.0.0``, ``prefix.1.0``, ... of a convolution and its norm."""
    count = 0
    while f"{prefix}{count}.0.weight" in tensors:
        count += 1
    return count


def _convert_rcnn(translation: Translation, tensors: Mapping[str, Tensor]) -> ForeignModel:
    """Reorder the predictors in place, and return the model."""
    ours = translation.tensors
    num_rows = ours["roi_heads.box_predictor.cls_score.bias"].shape[0]
    has_masks = "roi_heads.mask_head.predictor.weight" in ours
    has_keypoints = "roi_heads.keypoint_head.score_lowres.weight" in ours
    is_coco = num_rows == NUM_COCO_IDS or (has_keypoints and num_rows == 2)
    names = coco_names() if num_rows == NUM_COCO_IDS else {}
    rows = list(names) or list(range(1, num_rows))
    for name, tensor in list(ours.items()):
        if name.startswith("roi_heads.box_predictor.cls_score."):
            ours[name] = take_rows(tensor, [*rows, 0])  # background, their first row, is our last one
        elif name.startswith("roi_heads.box_predictor.bbox_pred."):
            ours[name] = take_rows(tensor, rows, 4)
        elif name.startswith("roi_heads.mask_head.predictor."):
            ours[name] = take_rows(tensor, rows)
    is_first_version = _rpn_convs(tensors) == 1
    if is_coco and is_first_version:
        _absorb_zero_eps(ours)

    architecture = "keypoint_rcnn" if has_keypoints else "mask_rcnn" if has_masks else "faster_rcnn"
    overrides = [
        f"model={architecture}_fpn",
        "data=coco_keypoint" if has_keypoints else "data=coco_instance",
        *_pyramid_overrides(tensors),
        "size.sampling_ratio=2",
        f"model.proposal_generator.anchor_generator._target_={ROUNDED_ANCHORS}",
        "model.proposal_generator.pre_nms_topk=[2000,1000]",
        "model.proposal_generator.post_nms_topk=[2000,1000]",
        "model.proposal_generator.min_box_size=0.001",
        "model.roi_heads.box_pooler.pooler_type=ROIAlign",
        "model.roi_heads.box_predictor.test_min_box_size=0.01",
        *_box_head_overrides(ours),
    ]
    if len(rows) != (1 if has_keypoints else len(coco_names())):
        overrides.append(f"num_classes={len(rows)}")
    if not is_first_version:
        overrides.append(f"model.proposal_generator.head.conv_dims={[-1] * _rpn_convs(tensors)}")
    if has_masks:
        overrides += _mask_overrides(ours)
    if has_keypoints:
        convs = layer_widths(ours, "roi_heads.keypoint_head.conv_fcn")
        num_keypoints = ours["roi_heads.keypoint_head.score_lowres.weight"].shape[1]
        overrides += [
            f"num_keypoints={num_keypoints}",
            f"model.roi_heads.keypoint_head.conv_dims={convs}",
            "model.roi_heads.keypoint_pooler.pooler_type=ROIAlign",
        ]
        if is_coco:
            return ForeignModel(tuple(overrides), ("person",))
    return ForeignModel(tuple(overrides), tuple(names.values()))


def _box_head_overrides(ours: Mapping[str, Tensor]) -> list[str]:
    convs = layer_widths(ours, "roi_heads.box_head.conv")
    overrides = [f"model.roi_heads.box_head.fc_dims={layer_widths(ours, 'roi_heads.box_head.fc')}"]
    if convs:
        overrides.append(f"model.roi_heads.box_head.conv_dims={convs}")
        overrides += _norm_override(ours, "roi_heads.box_head.conv1.", "model.roi_heads.box_head")
    return overrides


def _mask_overrides(ours: Mapping[str, Tensor]) -> list[str]:
    convs = layer_widths(ours, "roi_heads.mask_head.mask_fcn")
    deconv = ours["roi_heads.mask_head.deconv.weight"].shape[1]
    return [
        f"model.roi_heads.mask_head.conv_dims={[*convs, deconv]}",
        "model.roi_heads.mask_pooler.pooler_type=ROIAlign",
        *_norm_override(ours, "roi_heads.mask_head.mask_fcn1.", "model.roi_heads.mask_head"),
    ]


def _norm_override(ours: Mapping[str, Tensor], conv: str, node: str) -> list[str]:
    if f"{conv}norm.weight" not in ours:
        return []
    return [f"{node}.conv_norm={batch_norm(ours, f'{conv}norm.')}"]


def _dense_rules(tensors: Mapping[str, Tensor]) -> list[Rule]:
    rules: list[Rule] = []
    for theirs, subnet in (("classification", "cls_subnet"), ("regression", "bbox_subnet")):
        convs = rf"head\.{theirs}_head\.conv\."
        has_norm = f"head.{theirs}_head.conv.0.1.weight" in tensors
        step = 3 if has_norm else 2  # convolution, norm if any, and ReLU
        rules += [
            (
                convs + r"(\d)\.([01])\.(.+)",
                lambda match, subnet=subnet, step=step: (  # type: ignore[misc]
                    f"head.{subnet}.{int(match[1]) * step + int(match[2])}.{match[3]}"
                ),
            ),
            (convs + r"(\d+)\.(.+)", rf"head.{subnet}.\1.\2"),
        ]
    return [
        *rules,
        (r"head\.classification_head\.cls_logits\.(.+)", r"head.cls_score.\1"),
        (r"head\.regression_head\.bbox_reg\.(.+)", r"head.bbox_pred.\1"),
        (r"head\.regression_head\.bbox_ctrness\.(.+)", r"head.ctrness.\1"),
    ]


def _convert_dense(translation: Translation, tensors: Mapping[str, Tensor]) -> ForeignModel:
    """Reorder the predictors in place, and return the model."""
    ours = translation.tensors
    is_fcos = "head.ctrness.weight" in ours
    num_anchors = ours["head.bbox_pred.weight"].shape[0] // 4
    num_rows = ours["head.cls_score.weight"].shape[0] // num_anchors
    names = coco_names() if num_rows == NUM_COCO_IDS else {}
    rows = list(names) or list(range(num_rows))
    for kind in ("weight", "bias"):
        scores = ours[f"head.cls_score.{kind}"].unflatten(0, (num_anchors, num_rows))[:, rows]
        deltas = ours[f"head.bbox_pred.{kind}"].unflatten(0, (num_anchors, 4))
        if not is_fcos:
            scores, deltas = (sizes_before_ratios(x, NUM_RATIOS) for x in (scores, deltas))
        ours[f"head.cls_score.{kind}"] = scores.flatten(0, 1)
        ours[f"head.bbox_pred.{kind}"] = deltas.flatten(0, 1)
    has_norm = "head.cls_subnet.1.weight" in ours
    convs = subnet_widths(ours)
    if has_norm:
        add_zero_biases(ours)
    elif num_rows == NUM_COCO_IDS:
        _absorb_zero_eps(ours)
    in_feature = "p5" if ours["backbone.top_block.p6.weight"].shape[1] == convs[0] else "res5"
    overrides = [
        "model=fcos" if is_fcos else "model=retinanet",
        "data=coco_instance",
        *_pyramid_overrides(tensors),
        f"size.dense_conv_dims={convs}",
        f"model.backbone.top_block.in_feature={in_feature}",
        f"model.head.norm={'GN' if has_norm else 'null'}",
        "model.test_clip_boxes=true",
        *(FCOS_OVERRIDES if is_fcos else RETINANET_OVERRIDES),
    ]
    if len(rows) != len(coco_names()):
        overrides.append(f"num_classes={len(rows)}")
    return ForeignModel(tuple(overrides), tuple(names.values()))


RETINANET_OVERRIDES = (
    f"model.anchor_generator._target_={ROUNDED_ANCHORS}",
    "size.dense_anchor_sizes=[[32,40,50],[64,80,101],[128,161,203],[256,322,406],[512,645,812]]",
    "model.max_detections_per_image=300",
)
FCOS_OVERRIDES = (
    f"model.anchor_generator={{_target_:{ROUNDED_ANCHORS},sizes:[[8],[16],[32],[64],[128]],aspect_ratios:[1.0],"
    "strides:[8,16,32,64,128],offset:0.0}",
)


def _absorb_zero_eps(ours: dict[str, Tensor]) -> None:
    """Subtract the epsilon of frozen norms from their variances.

    torchvision runs the published weights of the first versions of R-CNNs and RetinaNet without epsilon. No file says
    so, but only these weights have frozen norms and the classes of COCO.
    """
    for name in [n for n in ours if n.startswith(BOTTOM_UP) and n.endswith(".norm.running_var")]:
        if f"{name.removesuffix('running_var')}num_batches_tracked" not in ours:
            ours[name] = ours[name] - FROZEN_EPS
