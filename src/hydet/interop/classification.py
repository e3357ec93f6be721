"""Classifiers of torchvision and timm: ResNet and ResNeXt, and torchvision's RegNet and Swin transformer.

They become hydet's own networks for a backbone. ``TorchvisionBackbone`` and ``TimmBackbone`` keep the names of the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from .foreign import ForeignModel, ForeignWeights
from .resnet_layout import IMAGENET_PIXELS, batch_norm, is_plain_resnet, resnet_overrides, resnet_rules
from .translation import Rule, count_children, translate

__all__ = ["convert", "fits"]

CLASSIFIER: list[Rule] = [(r"(?:fc|head)\.(weight|bias)", r"linear.\1")]

SWIN_TABLE = "features.1.0.attn.relative_position_bias_table"
SWIN_RULES: list[Rule] = [
    (r"features\.0\.0\.(.+)", r"patch_embed.proj.\1"),
    (r"features\.0\.2\.(.+)", r"patch_embed.norm.\1"),
    # Stages and patch mergings alternate.
    (
        r"features\.(\d*[13579])\.(\d+)\.(norm[12]|attn)\.(.+)",
        lambda m: f"layers.{int(m[1]) // 2}.blocks.{m[2]}.{m[3]}.{m[4]}",
    ),
    (
        r"features\.(\d*[13579])\.(\d+)\.mlp\.([03])\.(.+)",
        lambda m: f"layers.{int(m[1]) // 2}.blocks.{m[2]}.mlp.fc{1 if m[3] == '0' else 2}.{m[4]}",
    ),
    (
        r"features\.(\d*[02468])\.(reduction|norm)\.(.+)",
        lambda m: f"layers.{int(m[1]) // 2 - 1}.downsample.{m[2]}.{m[3]}",
    ),
    (r"norm\.(.+)", r"norm3.\1"),
]

REGNET_BLOCK = r"trunk_output\.block(\d)\.block\d-(\d+)\."
REGNET_STEM = "stem.0.weight"


def _regnet_rule(pattern: str, new: str) -> Rule:
    """Return a rule for a part of a block, whose number starts from 0 in the file and from 1 in hydet."""
    return REGNET_BLOCK + pattern, lambda m: m.expand(rf"s\1.b{int(m[2]) + 1}.{new}")


REGNET_RULES: list[Rule] = [
    (r"stem\.0\.(.+)", r"stem.conv.\1"),
    (r"stem\.1\.(.+)", r"stem.bn.\1"),
    _regnet_rule(r"proj\.0\.(.+)", r"proj.\3"),
    _regnet_rule(r"proj\.1\.(.+)", r"bn.\3"),
    _regnet_rule(r"f\.([abc])\.0\.(.+)", r"f.\3.\4"),
    _regnet_rule(r"f\.([abc])\.1\.(.+)", r"f.\3_bn.\4"),
    _regnet_rule(r"f\.se\.fc1\.(.+)", r"f.se.f_ex.0.\3"),
    _regnet_rule(r"f\.se\.fc2\.(.+)", r"f.se.f_ex.2.\3"),
]


def fits(tensors: Mapping[str, Tensor]) -> bool:
    """Return True for a classifier that hydet has the same network of."""
    return is_plain_resnet(tensors) or _is_regnet(tensors) or SWIN_TABLE in tensors


def convert(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, object]) -> ForeignWeights:
    """Convert the state dict of a classifier; names match by their ends, below any backbone.

    Args:
        path: the file.
        tensors: content of the state dict.
        meta: not used, since files of torchvision and timm hold nothing else.
    """
    overrides: list[str] | None
    if SWIN_TABLE in tensors:
        rules, overrides = SWIN_RULES, _swin_overrides(tensors)
    elif _is_regnet(tensors):
        rules, overrides = REGNET_RULES, _regnet_overrides(tensors)
    else:
        rules, overrides = resnet_rules("", ""), resnet_overrides(tensors)
    translation = translate(tensors, [*rules, *CLASSIFIER])
    for name, tensor in translation.tensors.items():
        if name.endswith("relative_position_index"):  # flat in torchvision
            side = round(tensor.numel() ** 0.5)
            translation.tensors[name] = tensor.view(side, side)
    return ForeignWeights(
        path,
        "torchvision or timm",
        translation.tensors,
        renamed=translation.renamed,
        skipped=translation.skipped,
        by_suffix=True,
        unconverted=tensors,
        model=None if overrides is None else ForeignModel((*overrides, *IMAGENET_PIXELS)),
    )


def _is_regnet(tensors: Mapping[str, Tensor]) -> bool:
    return REGNET_STEM in tensors and "trunk_output.block1.block1-0.f.a.0.weight" in tensors


def _swin_overrides(tensors: Mapping[str, Tensor]) -> list[str]:
    depths = [count_children(tensors, f"features.{i}.") for i in (1, 3, 5, 7)]
    tables = [tensors[f"features.{i}.0.attn.relative_position_bias_table"] for i in (1, 3, 5, 7)]
    window_size = (round(tables[0].shape[0] ** 0.5) + 1) // 2  # the table has (2 w - 1) ** 2 rows
    return [
        "backbone=swin_t",
        f"backbone.embed_dim={tensors['features.0.0.weight'].shape[0]}",
        f"backbone.depths={depths}",
        f"backbone.num_heads={[table.shape[1] for table in tables]}",
        f"backbone.window_size={window_size}",
    ]


def _regnet_overrides(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the overrides for an ``AnyNet``, whose numbers follow from the shapes, unlike those of a ``RegNet``."""
    stages = [f"trunk_output.block{i}." for i in range(1, 5)]
    depths = [len({n.split(".")[2] for n in tensors if n.startswith(stage)}) for stage in stages]
    first = [f"{stage}block{i}-0.f." for i, stage in enumerate(stages, start=1)]
    widths = [tensors[f"{block}c.0.weight"].shape[0] for block in first]
    ratios = [
        tensors[f"{block}b.0.weight"].shape[0] / width for block, width in zip(first, widths, strict=True)
    ]
    stem_width = tensors[REGNET_STEM].shape[0]
    squeezed = tensors.get(f"{first[0]}se.fc1.weight")
    return [
        "backbone=regnetx_4gf",
        "backbone._target_=hydet.modeling.AnyNet",
        *(f"~backbone.{name}" for name in ("depth", "w_a", "w_0", "w_m", "group_width")),
        f"norm={batch_norm(tensors, 'stem.1.')}",
        f"backbone.stem_width={stem_width}",
        f"+backbone.depths={depths}",
        f"+backbone.widths={widths}",
        f"+backbone.group_widths={[tensors[f'{block}b.0.weight'].shape[1] for block in first]}",
        "+backbone.strides=[2,2,2,2]",
        f"+backbone.bottleneck_ratios={ratios}",
        f"+backbone.se_ratio={0.0 if squeezed is None else squeezed.shape[0] / stem_width}",
    ]
