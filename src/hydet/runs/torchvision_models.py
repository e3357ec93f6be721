"""The detectors of torchvision that correspond to models of hydet, for comparisons of speed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hydet.config import ConfigError
from hydet.modeling import FCOS, GeneralizedRCNN, MetaArchitecture, PanopticFPN, RetinaNet
from hydet.structures import ModelInput

from .benchmark_inputs import settling_norms, threshold_of

__all__ = ["TorchvisionBatch", "build_torchvision", "calibrate_torchvision", "to_torchvision"]

# Images and targets in the format of torchvision.
TorchvisionBatch = tuple[list[Tensor], list[dict[str, Tensor]]]


def build_torchvision(model: MetaArchitecture, *, num_classes: int, num_keypoints: int) -> nn.Module:
    """Build torchvision's detector of the same architecture with a ResNet-50-FPN and random weights.

    Anchors, proposals, samples and detections per image are those of the published recipes on both sides, and neither
    resizes images.

    Raises:
        ConfigError: if torchvision has no such model.
    """
    from torchvision.models import detection

    settings: dict[str, Any] = {"weights": None, "weights_backbone": None, "num_classes": num_classes + 1}
    if isinstance(model, RetinaNet):
        theirs = detection.retinanet_resnet50_fpn(**settings, score_thresh=0.0, detections_per_img=100)
    elif isinstance(model, FCOS):
        theirs = detection.fcos_resnet50_fpn(**settings, score_thresh=0.0, detections_per_img=100)
    elif isinstance(model, GeneralizedRCNN) and not isinstance(model, PanopticFPN):
        theirs = _build_rcnn(detection, model, settings, num_keypoints)
    else:
        raise ConfigError(
            f"torchvision has no counterpart of {type(model).__name__}: leave out against=torchvision"
        )
    theirs.transform.resize = lambda image, target=None: (image, target)
    _settle(theirs)
    built: nn.Module = theirs
    return built


def _build_rcnn(detection: Any, model: GeneralizedRCNN, settings: dict[str, Any], num_keypoints: int) -> Any:
    proposals = {
        "rpn_pre_nms_top_n_train": 2000,
        "rpn_post_nms_top_n_train": 1000,
        "rpn_pre_nms_top_n_test": 1000,
        "rpn_post_nms_top_n_test": 1000,
    }
    if "keypoints" in model.tasks:
        return detection.keypointrcnn_resnet50_fpn(**settings, **proposals, num_keypoints=num_keypoints)
    if "mask" in model.tasks:
        return detection.maskrcnn_resnet50_fpn(**settings, **proposals)
    return detection.fasterrcnn_resnet50_fpn(**settings, **proposals)


def _settle(model: Any) -> None:
    """Freeze the norms of the backbone, and the first two stages, as the published recipes do."""
    from torchvision.ops.misc import FrozenBatchNorm2d

    for name, module in list(model.backbone.body.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            parent, _, child = name.rpartition(".")
            frozen = FrozenBatchNorm2d(module.num_features, eps=module.eps)
            setattr(model.backbone.body.get_submodule(parent), child, frozen)
    for name, parameter in model.backbone.body.named_parameters():
        parameter.requires_grad = not name.startswith(("conv1", "layer1"))


def to_torchvision(batch: Sequence[ModelInput], device: torch.device) -> TorchvisionBatch:
    """Convert a batch to torchvision's format."""
    images, targets = [], []
    for entry in batch:
        instances = entry["instances"]
        target = {"boxes": instances.gt_boxes.tensor, "labels": instances.gt_classes + 1}
        if instances.has("gt_masks"):
            target["masks"] = instances.gt_masks.tensor.byte()
        if instances.has("gt_keypoints"):
            target["keypoints"] = instances.gt_keypoints.tensor
        images.append(entry["image"].float().div(255).to(device))
        targets.append({name: value.to(device) for name, value in target.items()})
    return images, targets


@torch.no_grad()
def calibrate_torchvision(model: Any, images: list[Tensor]) -> None:
    """Set the statistics of norms from the images, and a score threshold; see ``calibrate``."""
    model.eval()
    transformed, _ = model.transform(images)
    with settling_norms(model):
        model.backbone(transformed.tensors)
    heads = getattr(model, "roi_heads", None)
    if heads is None:
        return
    logits: list[Tensor] = []
    heads.score_thresh = 2.0
    handle = heads.box_predictor.register_forward_hook(lambda _, __, output: logits.append(output[0]))
    model(images)
    handle.remove()
    heads.score_thresh = threshold_of(logits[-1].float().softmax(dim=1)[:, 1:], len(images))
