"""Weights of Caffe2: backbones trained on ImageNet, and detection models."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from hydet.data import DataError

from .foreign import ForeignWeights

__all__ = ["convert", "fits"]

# Epsilon of the norms. An affine norm of Caffe2 stands for a norm with mean 0 and variance 1 - epsilon.
_EPS = 1e-5
_MOMENTUM = "_momentum"
_OPTIMIZER_STATE = "state of the optimizer"

# Endings of the names, of which the first that fits is replaced. Underscores are dots already.
_ENDINGS = (
    (r"^pred\.w$", "linear.weight"),
    (r"^pred\.b$", "linear.bias"),
    (r"\b[bg]n\.s$", "norm.weight"),
    (r"\b[bg]n\.b$", "norm.bias"),
    (r"\bbn\.(rm|running\.mean)$", "norm.running_mean"),
    (r"\bbn\.(riv|running\.var)$", "norm.running_var"),
    (r"\bbn\.gamma$", "norm.weight"),
    (r"\bbn\.beta$", "norm.bias"),
    (r"\.w$", ".weight"),
    (r"\.b$", ".bias"),
)
# Parts of the names, all of which are replaced in this order.
_PARTS = (
    (r"^(res\.)?conv1\.", "stem.conv1."),
    (r"\.branch1\.", ".shortcut."),
    (r"\.branch2a\.", ".conv1."),
    (r"\.branch2b\.", ".conv2."),
    (r"\.branch2c\.", ".conv3."),
    (r"^conv\.rpn(\.fpn2)?\.", "proposal_generator.rpn_head.conv."),
    (r"^rpn\.bbox\.pred(\.fpn2)?\.", "proposal_generator.rpn_head.anchor_deltas."),
    (r"^rpn\.cls\.logits(\.fpn2)?\.", "proposal_generator.rpn_head.objectness_logits."),
    (r"^bbox\.pred\.", "bbox_pred."),
    (r"^cls\.score\.", "cls_score."),
    (r"^fc6\.", "box_head.fc1."),
    (r"^fc7\.", "box_head.fc2."),
    (r"^head\.conv", "box_head.conv"),
    (r"^fpn\.inner\.res(\d)\.\d+\.sum(\.lateral)?\.", r"fpn_lateral\1."),
    (r"^fpn\.res(\d)\.\d+\.sum\.", r"fpn_output\1."),
    (r"^(\.\[mask\]|\.?mask)\.fcn(\d+)\.", r"mask_head.mask_fcn\2."),
    (r"^mask\.fcn\.logits\.", "mask_head.predictor."),
    (r"^conv5\.mask\.", "mask_head.deconv."),
    (r"^conv\.fcn(\d+)\.", r"roi_heads.keypoint_head.conv_fcn\1."),
    (r"^kps\.score\.lowres\.", "roi_heads.keypoint_head.score_lowres."),
    (r"^kps\.score\.", "roi_heads.keypoint_head.score."),
)


def fits(tensors: Mapping[str, Tensor]) -> bool:
    """Return True for names without dots, some of which end as those of Caffe2 do."""
    return not any("." in name for name in tensors) and any(name.endswith("_w") for name in tensors)


def convert(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, object]) -> ForeignWeights:
    """Convert names, and move or drop the rows of background.

    Norms that are affine get a mean of 0 and a variance of 1 - epsilon, so that they also fit layers with statistics.

    Args:
        path: the file.
        tensors: content of the file.
        meta: not used.

    Raises:
        DataError: if two tensors have one name in hydet, or a classifier has no rows.
    """
    converted: dict[str, Tensor] = {}
    renamed: dict[str, str] = {}
    for name, tensor in tensors.items():
        if name.endswith(_MOMENTUM):
            continue
        new_name = _convert_name(name)
        if new_name in converted:
            raise DataError(f"{path}: {renamed[new_name]} and {name} are both {new_name} in hydet")
        try:
            converted[new_name] = _move_background(new_name, tensor)
        except IndexError as error:
            raise DataError(f"{path}: {name} is a predictor of shape {tuple(tensor.shape)}") from error
        renamed[new_name] = name
    statistics = _implied_statistics(converted, renamed)
    converted.update(statistics)
    for name in statistics:
        renamed[name] = renamed[f"{name.rpartition('.')[0]}.weight"]
    skipped = {name: _OPTIMIZER_STATE for name in tensors if name.endswith(_MOMENTUM)}
    return ForeignWeights(path, "caffe2", converted, renamed=renamed, skipped=skipped, by_suffix=True)


def _convert_name(name: str) -> str:
    name = name.replace("_", ".")
    for pattern, replacement in _ENDINGS:
        name, count = re.subn(pattern, replacement, name)
        if count:
            break
    for pattern, replacement in _PARTS:
        name = re.sub(pattern, replacement, name)
    return name


def _move_background(name: str, tensor: Tensor) -> Tensor:
    """Return a predictor with background as its last class, or without it; other tensors are returned as they are."""
    module = name.rpartition(".")[0]
    change = _BACKGROUND.get(module)
    return tensor if change is None else change(tensor)


def _to_last_row(tensor: Tensor) -> Tensor:
    if tensor.ndim == 0:
        raise IndexError
    return torch.cat([tensor[1:], tensor[:1]])


def _without_box(tensor: Tensor) -> Tensor:
    return tensor[4:].clone()


def _without_first_row(tensor: Tensor) -> Tensor:
    # A mask for all classes alike has no row for background.
    return tensor[1:].clone() if tensor.shape[0] > 1 else tensor


_BACKGROUND: Mapping[str, Callable[[Tensor], Tensor]] = {
    "cls_score": _to_last_row,
    "bbox_pred": _without_box,
    "mask_head.predictor": _without_first_row,
}


def _implied_statistics(tensors: Mapping[str, Tensor], renamed: Mapping[str, str]) -> dict[str, Tensor]:
    """Return mean and variance of the norms that are affine in the file."""
    statistics: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        norm, _, parameter = name.rpartition(".")
        is_group_norm = "_gn_" in renamed[name]
        if (
            parameter != "weight"
            or not norm.endswith("norm")
            or is_group_norm
            or f"{norm}.running_var" in tensors
        ):
            continue
        statistics[f"{norm}.running_mean"] = torch.zeros_like(tensor)
        statistics[f"{norm}.running_var"] = torch.ones_like(tensor) - _EPS
    return statistics
