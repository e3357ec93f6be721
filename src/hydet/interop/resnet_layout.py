"""ResNets of torchvision, whose names timm and mmdet share: names, and the config of the same network in hydet."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from hydet.modeling.backbones.resnet import BLOCKS_PER_STAGE

from .translation import Rule, count_children, shifted

__all__: list[str] = []

IMAGENET_PIXELS = (
    "input_format=RGB",
    "pixel_mean=[123.675,116.28,103.53]",
    "pixel_std=[58.395,57.12,57.375]",
)


def resnet_rules(prefix: str, new_prefix: str) -> list[Rule]:
    """Return the rules for a ResNet.

    Args:
        prefix: start of its names in the file, as a regular expression.
        new_prefix: start of its names in hydet.
    """
    block = rf"{prefix}layer(\d)\.(\d+)\."
    stage = rf"{new_prefix}res#.\2."
    return [
        (rf"{prefix}conv1\.(.+)", rf"{new_prefix}stem.conv1.\1"),
        (rf"{prefix}bn1\.(.+)", rf"{new_prefix}stem.conv1.norm.\1"),
        (rf"{block}conv(\d)\.(.+)", shifted(rf"{stage}conv\3.\4", 1)),
        (rf"{block}bn(\d)\.(.+)", shifted(rf"{stage}conv\3.norm.\4", 1)),
        (rf"{block}downsample\.0\.(.+)", shifted(rf"{stage}shortcut.\3", 1)),
        (rf"{block}downsample\.1\.(.+)", shifted(rf"{stage}shortcut.norm.\3", 1)),
    ]


def is_plain_resnet(tensors: Mapping[str, Tensor], prefix: str = "") -> bool:
    """Return True for a ResNet that hydet builds: a 7x7 stem, and blocks of two or three convolutions without extras."""
    stem = tensors.get(f"{prefix}conv1.weight")
    if stem is None or stem.shape[2:] != (7, 7) or f"{prefix}layer1.0.conv2.weight" not in tensors:
        return False
    known = ("conv1.", "conv2.", "conv3.", "bn1.", "bn2.", "bn3.", "downsample.0.", "downsample.1.")
    blocks = (
        name.removeprefix(prefix).split(".", 2) for name in tensors if name.startswith(f"{prefix}layer")
    )
    shortcut = tensors.get(f"{prefix}layer2.0.downsample.0.weight")
    return (
        shortcut is not None
        and shortcut.shape[2:] == (1, 1)
        and all(len(parts) == 3 and parts[2].startswith(known) for parts in blocks)
    )


def resnet_depth(tensors: Mapping[str, Tensor], prefix: str = "") -> int | None:
    """Return the depth of a ResNet from its numbers of blocks, or None if no published network has them."""
    is_bottleneck = f"{prefix}layer1.0.conv3.weight" in tensors
    counts = tuple(count_children(tensors, f"{prefix}layer{i}.") for i in range(1, 5))
    return next(
        (
            depth
            for depth, blocks in BLOCKS_PER_STAGE.items()
            if blocks == counts and (depth >= 50) == is_bottleneck
        ),
        None,
    )


def resnet_overrides(
    tensors: Mapping[str, Tensor], prefix: str = "", *, stride_in_1x1: bool = False
) -> list[str] | None:
    """Return the overrides that build the network in hydet, or None if hydet has no such network.

    Args:
        tensors: state dict.
        prefix: start of the names of the network.
        stride_in_1x1: True for the stride of the original networks, which no weight shows.
    """
    depth = resnet_depth(tensors, prefix)
    if depth is None or not is_plain_resnet(tensors, prefix):
        return None
    overrides = [f"backbone=r{depth}", f"norm={batch_norm(tensors, f'{prefix}bn1.')}"]
    stem, inner = tensors[f"{prefix}conv1.weight"], tensors[f"{prefix}layer1.0.conv2.weight"]
    if stem.shape[0] != 64:
        overrides.append(f"backbone.stem_out_channels={stem.shape[0]}")
    if depth < 50:
        width = inner.shape[0]
        return overrides if width == 64 else [*overrides, f"backbone.res2_out_channels={width}"]
    overrides.append(f"backbone.stride_in_1x1={str(stride_in_1x1).lower()}")
    width = tensors[f"{prefix}layer1.0.conv3.weight"].shape[0]
    if width != 256:
        overrides.append(f"backbone.res2_out_channels={width}")
    groups, group_width = inner.shape[0] // inner.shape[1], inner.shape[1]
    if (groups, group_width) != (1, 64):
        overrides += [f"backbone.num_groups={groups}", f"backbone.width_per_group={group_width}"]
    return overrides


def batch_norm(tensors: Mapping[str, Tensor], prefix: str) -> str:
    """Return ``BN``, or ``FrozenBN`` for layers without the counter of batches that trainable layers have."""
    return "BN" if f"{prefix}num_batches_tracked" in tensors else "FrozenBN"
