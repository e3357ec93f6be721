"""Detectors of mmdet 3.x with a ResNet and a feature pyramid: Faster, Mask and Cascade R-CNN, Panoptic FPN, RetinaNet, FCOS.

Settings that no weight shows, such as thresholds, pixel statistics and the stride of ResNet's blocks, come from the config
in the file, or are those of mmdet's published models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from hydet.data import DataError

from .coco_names import coco_names
from .dense_layout import add_zero_biases, sizes_before_ratios, subnet_widths
from .foreign import ForeignModel, ForeignWeights
from .mmdet_config import look_up, number_at, numbers_at, read_model_config
from .resnet_layout import resnet_overrides, resnet_rules
from .translation import Rule, Translation, count_children, layer_widths, shifted, take_rows, translate

__all__ = ["convert", "fits"]

LATERAL = "neck.lateral_convs."
PREDICTORS = ("bbox_head.retina_cls.", "bbox_head.conv_centerness.", "roi_head.bbox_head.")
RPN_STRIDES, DENSE_STRIDES = (4, 8, 16, 32, 64), (8, 16, 32, 64, 128)
STAGE_DEVIATIONS = ((0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067))

RCNN_RULES: list[Rule] = [
    (r"rpn_head\.rpn_conv\.(.+)", r"proposal_generator.rpn_head.conv.\1"),
    (r"rpn_head\.rpn_cls\.(.+)", r"proposal_generator.rpn_head.objectness_logits.\1"),
    (r"rpn_head\.rpn_reg\.(.+)", r"proposal_generator.rpn_head.anchor_deltas.\1"),
    (r"roi_head\.bbox_head\.shared_fcs\.(\d)\.(.+)", shifted(r"roi_heads.box_head.fc#.\2", 1)),
    (r"roi_head\.bbox_head\.fc_cls\.(.+)", r"roi_heads.box_predictor.cls_score.\1"),
    (r"roi_head\.bbox_head\.fc_reg\.(.+)", r"roi_heads.box_predictor.bbox_pred.\1"),
    (
        r"roi_head\.bbox_head\.(\d)\.shared_fcs\.(\d)\.(.+)",
        lambda match: f"roi_heads.box_head.{match[1]}.fc{int(match[2]) + 1}.{match[3]}",
    ),
    (r"roi_head\.bbox_head\.(\d)\.fc_cls\.(.+)", r"roi_heads.box_predictor.\1.cls_score.\2"),
    (r"roi_head\.bbox_head\.(\d)\.fc_reg\.(.+)", r"roi_heads.box_predictor.\1.bbox_pred.\2"),
    (
        r"roi_head\.mask_head\.(\d\.)?convs\.(\d)\.conv\.(.+)",
        lambda match: f"{_mask_head(match[1])}mask_fcn{int(match[2]) + 1}.{match[3]}",
    ),
    (r"roi_head\.mask_head\.(\d\.)?upsample\.(.+)", lambda match: f"{_mask_head(match[1])}deconv.{match[2]}"),
    (
        r"roi_head\.mask_head\.(\d\.)?conv_logits\.(.+)",
        lambda match: f"{_mask_head(match[1])}predictor.{match[2]}",
    ),
    (
        r"semantic_head\.conv_upsample_layers\.(\d)\.conv\.(\d)\.conv\.(.+)",
        lambda match: f"{_semantic_conv(match[1], match[2])}.{match[3]}",
    ),
    (
        r"semantic_head\.conv_upsample_layers\.(\d)\.conv\.(\d)\.gn\.(.+)",
        lambda match: f"{_semantic_conv(match[1], match[2])}.norm.{match[3]}",
    ),
    (r"semantic_head\.conv_logits\.(.+)", r"sem_seg_head.predictor.\1"),
]


class Source(NamedTuple):
    """State dict and config of a file."""

    tensors: Mapping[str, Tensor]
    config: Mapping[str, object]


def _mask_head(stage: str | None) -> str:
    return f"roi_heads.mask_head.heads.{stage}" if stage else "roi_heads.mask_head."


def _semantic_conv(level: str, index: str) -> str:
    """Return the name of a convolution; all but those of the finest level are followed by an upsampling."""
    return f"sem_seg_head.p{int(level) + 2}.{2 * int(index)}"


def fits(tensors: Mapping[str, Tensor]) -> bool:
    """Return True for a detector of mmdet with a feature pyramid."""
    return f"{LATERAL}0.conv.weight" in tensors and any(name.startswith(PREDICTORS) for name in tensors)


def convert(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, object]) -> ForeignWeights:
    """Convert the state dict of a detector.

    Args:
        path: the file, for messages.
        tensors: content of the state dict.
        meta: the other values in the file: ``meta`` with the config as text (``cfg``) and the classes.

    Raises:
        DataError: if hydet has no such backbone.
    """
    details = meta.get("meta")
    details = details if isinstance(details, Mapping) else {}
    source = Source(tensors, read_model_config(details.get("cfg", details.get("config"))))
    is_dense = any(name.startswith(PREDICTORS[:2]) for name in tensors)
    is_fcos = any(name.startswith(PREDICTORS[1]) for name in tensors)
    style = look_up(source.config, "backbone.style", "caffe" if is_fcos and not source.config else "pytorch")
    backbone = resnet_overrides(tensors, "backbone.", stride_in_1x1=style == "caffe")
    if backbone is None:
        raise DataError(f"{path}: a detector of mmdet with another backbone than a plain ResNet")
    translation = translate(
        tensors, [*_backbone_rules(source), *(_dense_rules(source) if is_dense else RCNN_RULES)]
    )
    overrides = _convert_dense(translation, source) if is_dense else _convert_rcnn(translation, source)
    num_classes = _num_classes(translation.tensors)
    names = _class_names(details, num_classes)
    has_stuff = "sem_seg_head.predictor.bias" in translation.tensors
    data = ["data=coco_panoptic" if has_stuff else "data=coco_instance"]
    if num_classes != len(coco_names()):
        data.append(f"num_classes={num_classes}")
    overrides = [*overrides, *data, *backbone, *_pixel_overrides(source, is_caffe=style == "caffe")]
    return ForeignWeights(
        path,
        "mmdet",
        translation.tensors,
        renamed=translation.renamed,
        skipped=translation.skipped,
        model=ForeignModel(tuple(overrides), names),
    )


def _class_names(details: Mapping[str, object], num_classes: int) -> tuple[str, ...]:
    dataset = details.get("dataset_meta")
    names = details.get("CLASSES")
    if isinstance(dataset, Mapping):
        names = dataset.get("classes", dataset.get("CLASSES"))
    if isinstance(names, Sequence) and not isinstance(names, str) and len(names) >= num_classes:
        return tuple(str(name) for name in names[:num_classes])  # the classes of stuff follow those of things
    return tuple(coco_names().values()) if num_classes == len(coco_names()) else ()


def _num_classes(ours: Mapping[str, Tensor]) -> int:
    if "head.bbox_pred.bias" in ours:
        return 4 * ours["head.cls_score.bias"].shape[0] // ours["head.bbox_pred.bias"].shape[0]
    name = "roi_heads.box_predictor.cls_score.bias"
    return ours[name if name in ours else "roi_heads.box_predictor.0.cls_score.bias"].shape[0] - 1


def _pixel_overrides(source: Source, *, is_caffe: bool) -> list[str]:
    mean, std = ((102.9801, 115.9465, 122.7717), (1.0, 1.0, 1.0)) if is_caffe else (
        (123.675, 116.28, 103.53),
        (58.395, 57.12, 57.375),
    )  # fmt: skip
    is_rgb = bool(look_up(source.config, "data_preprocessor.bgr_to_rgb", not is_caffe))
    return [
        f"input_format={'RGB' if is_rgb else 'BGR'}",
        f"pixel_mean={numbers_at(source.config, 'data_preprocessor.mean', mean)}",
        f"pixel_std={numbers_at(source.config, 'data_preprocessor.std', std)}",
    ]


def _backbone_rules(source: Source) -> list[Rule]:
    num_levels = count_children(source.tensors, LATERAL)
    first = 6 - num_levels  # the coarsest level is 5
    rules = resnet_rules(r"backbone\.", "backbone.bottom_up.")
    for i in (0, 1):
        rules.append((rf"neck\.fpn_convs\.{num_levels + i}\.conv\.(.+)", rf"backbone.top_block.p{6 + i}.\1"))
    rules.append((r"neck\.lateral_convs\.(\d)\.conv\.(.+)", shifted(r"backbone.fpn_lateral#.\2", first)))
    return [*rules, (r"neck\.fpn_convs\.(\d)\.conv\.(.+)", shifted(r"backbone.fpn_output#.\2", first))]


def _weights_of(deviations: Sequence[float]) -> list[float]:
    return [1 / deviation for deviation in deviations]


def _anchor_sizes(source: Source, node: str, strides: Sequence[int]) -> list[list[float]]:
    """Return the sizes of the anchors of each level; by default those of RetinaNet or an RPN."""
    base = number_at(
        source.config, f"{node}.octave_base_scale", 4 if node == "bbox_head.anchor_generator" else 0
    )
    if base > 0:
        octave = int(number_at(source.config, f"{node}.scales_per_octave", 3))
        scales = [base * 2 ** (i / octave) for i in range(octave)]
    else:
        scales = numbers_at(source.config, f"{node}.scales", [8])
    strides = [int(s) for s in numbers_at(source.config, f"{node}.strides", strides)]
    return [[stride * scale for scale in scales] for stride in strides]


def _convert_rcnn(translation: Translation, source: Source) -> list[str]:
    """Reorder the predictors in place, and return the overrides for the model."""
    ours, config = translation.tensors, source.config
    is_cascade = "roi_heads.box_predictor.0.cls_score.bias" in ours
    has_masks = any(name.startswith("roi_heads.mask_head.") for name in ours)
    has_stuff = "sem_seg_head.predictor.bias" in ours
    architecture = "cascade_" if is_cascade else ""
    architecture += "mask_rcnn" if has_masks else "rcnn" if is_cascade else "faster_rcnn"
    if has_stuff:
        architecture = "panoptic_cascade" if is_cascade else "panoptic"
    overrides = [
        f"model={architecture}_fpn",
        f"size.pyramid_channels={ours['backbone.fpn_output2.weight'].shape[0]}",
        f"model.proposal_generator.anchor_generator.sizes="
        f"{_anchor_sizes(source, 'rpn_head.anchor_generator', RPN_STRIDES)}",
        *_rpn_overrides(source),
    ]
    threshold = number_at(config, "test_cfg.rcnn.score_thr", 0.6 if has_stuff else 0.05)
    predictor = "model.roi_heads.box_predictors.make" if is_cascade else "model.roi_heads.box_predictor"
    overrides += [
        f"{predictor}.test_score_thresh={threshold}",
        f"{predictor}.test_nms_thresh={number_at(config, 'test_cfg.rcnn.nms.iou_threshold', 0.5)}",
        f"{predictor}.test_topk_per_image={int(number_at(config, 'test_cfg.rcnn.max_per_img', 100))}",
    ]
    if look_up(config, "test_cfg.rcnn.nms.class_agnostic", has_stuff and not config):
        overrides.append(f"{predictor}.test_class_agnostic_nms=true")
    overrides += _cascade_overrides(ours, source) if is_cascade else _box_overrides(ours, source)
    if has_masks:
        overrides += _mask_overrides(ours)
    if has_stuff:
        overrides += _semantic_overrides(ours, source)
    return overrides


def _rpn_overrides(source: Source) -> list[str]:
    node, config = "model.proposal_generator", source.config
    counts = {
        key: [int(number_at(config, f"{part}.{key}", 2000 if key == "nms_pre" and "train" in part else 1000))
              for part in ("train_cfg.rpn_proposal", "test_cfg.rpn")]
        for key in ("nms_pre", "max_per_img")
    }  # fmt: skip
    return [
        f"{node}.pre_nms_topk={counts['nms_pre']}",
        f"{node}.post_nms_topk={counts['max_per_img']}",
        f"{node}.nms_thresh={number_at(config, 'test_cfg.rpn.nms.iou_threshold', 0.7)}",
        f"{node}.min_box_size={number_at(config, 'test_cfg.rpn.min_bbox_size', 0.0)}",
    ]


def _box_overrides(ours: Mapping[str, Tensor], source: Source) -> list[str]:
    deviations = numbers_at(source.config, "roi_head.bbox_head.bbox_coder.target_stds", STAGE_DEVIATIONS[0])
    overrides = [
        f"model.roi_heads.box_head.fc_dims={layer_widths(ours, 'roi_heads.box_head.fc')}",
        f"model.roi_heads.box_predictor.box2box_transform.weights={_weights_of(deviations)}",
    ]
    if ours["roi_heads.box_predictor.bbox_pred.bias"].shape[0] == 4:
        overrides.append("model.roi_heads.box_predictor.cls_agnostic_bbox_reg=true")
    return overrides


def _cascade_overrides(ours: Mapping[str, Tensor], source: Source) -> list[str]:
    heads = look_up(source.config, "roi_head.bbox_head", [])
    stages = []
    for i, default in enumerate(STAGE_DEVIATIONS):
        head = heads[i] if isinstance(heads, list) and i < len(heads) and isinstance(heads[i], dict) else {}
        weights = _weights_of(numbers_at(head, "bbox_coder.target_stds", default))
        transform = f"_target_:hydet.modeling.Box2BoxTransform,weights:{weights}"
        stages.append(f"{{box2box_transform:{{{transform}}}}}")
    return [
        f"model.roi_heads.box_heads.make.fc_dims={layer_widths(ours, 'roi_heads.box_head.0.fc')}",
        f"model.roi_heads.box_predictors.each=[{','.join(stages)}]",
        "model.roi_heads.average_logits=true",
    ]


def _mask_overrides(ours: Mapping[str, Tensor]) -> list[str]:
    node, prefix = "model.roi_heads.mask_head", "roi_heads.mask_head."
    num_heads = count_children(ours, f"{prefix}heads.")
    prefix += "heads.0." if num_heads > 0 else ""
    dims = layer_widths(ours, f"{prefix}mask_fcn")
    dims.append(ours[f"{prefix}deconv.bias"].shape[0])
    if num_heads == 0:
        return [f"{node}.conv_dims={dims}"]
    num_classes = ours[f"{prefix}predictor.bias"].shape[0]
    head = (
        "{_target_:hydet.modeling.MaskRCNNConvUpsampleHead,_partial_:true,"
        f"num_classes:{num_classes},conv_dims:{dims}}}"
    )
    heads = ",".join([head] * num_heads)
    return [
        f"~{node}",
        f"+{node}={{_target_:hydet.modeling.MaskHeadEnsemble,_partial_:true,heads:[{heads}]}}",
    ]


def _semantic_overrides(ours: dict[str, Tensor], source: Source) -> list[str]:
    """Reorder the classes of stuff in place: things, their last row, are our label 0."""
    num_rows = ours["sem_seg_head.predictor.bias"].shape[0]
    for kind in ("weight", "bias"):
        name = f"sem_seg_head.predictor.{kind}"
        ours[name] = take_rows(ours[name], [num_rows - 1, *range(num_rows - 1)])
    has_norm = "sem_seg_head.p2.0.norm.weight" in ours
    return [
        f"model.sem_seg_head.norm={'GN' if has_norm else 'null'}",
        f"num_stuff_classes={num_rows}",
        f"model.sem_seg_head.conv_dims={ours['sem_seg_head.predictor.weight'].shape[1]}",
        f"model.combine_overlap_thresh={number_at(source.config, 'test_cfg.panoptic.mask_overlap', 0.5)}",
        f"model.combine_stuff_area_thresh={number_at(source.config, 'test_cfg.panoptic.stuff_area_limit', 4096)}",
        "model.combine_instances_score_thresh=0.0",
    ]


def _dense_rules(source: Source) -> list[Rule]:
    has_norm = "bbox_head.cls_convs.0.gn.weight" in source.tensors
    step = 3 if has_norm else 2  # convolution, norm if any, and ReLU
    rules: list[Rule] = []
    for theirs, subnet in (("cls_convs", "cls_subnet"), ("reg_convs", "bbox_subnet")):
        for part, offset in (("conv", 0), ("gn", 1)):
            rules.append(
                (
                    rf"bbox_head\.{theirs}\.(\d)\.{part}\.(.+)",
                    lambda match, subnet=subnet, offset=offset: (  # type: ignore[misc]
                        f"head.{subnet}.{int(match[1]) * step + offset}.{match[2]}"
                    ),
                )
            )
    return [
        *rules,
        (r"bbox_head\.(?:retina|conv)_cls\.(.+)", r"head.cls_score.\1"),
        (r"bbox_head\.(?:retina|conv)_reg\.(.+)", r"head.bbox_pred.\1"),
        (r"bbox_head\.conv_centerness\.(.+)", r"head.ctrness.\1"),
        (r"bbox_head\.scales\.(\d)\.scale", r"head.scales.\1"),
    ]


def _convert_dense(translation: Translation, source: Source) -> list[str]:
    """Reorder the predictors in place, and return the overrides for the model."""
    ours, config = translation.tensors, source.config
    is_fcos = "head.ctrness.weight" in ours
    has_norm = "head.cls_subnet.1.weight" in ours
    if has_norm:
        add_zero_biases(ours)
    convs = subnet_widths(ours)
    channels = ours["backbone.fpn_output3.weight"].shape[0]
    in_feature = "p5" if ours["backbone.top_block.p6.weight"].shape[1] == channels else "res5"
    activates = bool(look_up(config, "neck.relu_before_extra_convs", is_fcos and not config))
    overrides = [
        "model=fcos" if is_fcos else "model=retinanet",
        f"size.pyramid_channels={channels}",
        f"size.dense_conv_dims={convs}",
        f"model.backbone.top_block.in_feature={in_feature}",
        f"model.backbone.top_block.activate_p6={str(activates).lower()}",
        f"model.head.norm={'GN' if has_norm else 'null'}",
        "model.test_clip_boxes=true",
        f"model.test_drop_empty_boxes={str(number_at(config, 'test_cfg.min_bbox_size', 0) >= 0).lower()}",
        f"model.test_score_thresh={number_at(config, 'test_cfg.score_thr', 0.05)}",
        f"model.test_topk_candidates={int(number_at(config, 'test_cfg.nms_pre', 1000))}",
        f"model.test_nms_thresh={number_at(config, 'test_cfg.nms.iou_threshold', 0.5)}",
        f"model.max_detections_per_image={int(number_at(config, 'test_cfg.max_per_img', 100))}",
    ]
    return [*overrides, *(_fcos_overrides(ours, source) if is_fcos else _retinanet_overrides(ours, source))]


def _retinanet_overrides(ours: dict[str, Tensor], source: Source) -> list[str]:
    """Reorder the anchors in place."""
    num_anchors = ours["head.bbox_pred.bias"].shape[0] // 4
    ratios = numbers_at(source.config, "bbox_head.anchor_generator.ratios", (0.5, 1.0, 2.0))
    for name in ("cls_score.weight", "cls_score.bias", "bbox_pred.weight", "bbox_pred.bias"):
        split = ours[f"head.{name}"].unflatten(0, (num_anchors, -1))
        ours[f"head.{name}"] = sizes_before_ratios(split, len(ratios)).flatten(0, 1)
    return [
        f"size.dense_anchor_sizes={_anchor_sizes(source, 'bbox_head.anchor_generator', DENSE_STRIDES)}",
        f"model.anchor_generator.aspect_ratios=[{ratios}]",
        f"model.head.num_anchors={num_anchors}",
    ]


def _fcos_overrides(ours: dict[str, Tensor], source: Source) -> list[str]:
    """Stack the scales of the levels in place."""
    scales = [name for name in ours if name.startswith("head.scales.")]
    ours["head.scales"] = torch.stack([ours.pop(name) for name in sorted(scales)])
    is_normalized = bool(look_up(source.config, "bbox_head.norm_on_bbox", False))
    is_on_boxes = bool(look_up(source.config, "bbox_head.centerness_on_reg", False))
    overrides = [
        f"model.head.centerness_branch={'box' if is_on_boxes else 'class'}",
        "model.head.scale_per_level=true",
        "model.test_score=product",
    ]
    if not is_normalized:
        overrides.append(
            "model.box2box_transform={_target_:hydet.modeling.Box2BoxTransformLinear,"
            "normalize_by_size:false,exponential:true}"
        )
    return overrides
