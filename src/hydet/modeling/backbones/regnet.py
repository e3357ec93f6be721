"""AnyNet and RegNet."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
from torch import nn

from hydet.layers import CNNBlockBase

from .backbone import check_out_features
from .regnet_blocks import Activation
from .resnet_blocks import Norm
from .staged_backbone import StagedBackbone

__all__ = ["AnyNet", "RegNet"]

WIDTH_QUANTUM = 8


class AnyNet(StagedBackbone):
    """A stem followed by stages of identical blocks, named ``stem``, ``s1``, ``s2``, ...

    Args:
        stem_class: stem, such as ``SimpleStem``; called with ``in_channels, out_channels, norm, activation_class``.
        stem_width: channels of the stem.
        block_class: block, such as ``ResBottleneckBlock``; called with ``in_channels, out_channels, stride, norm,
            activation_class, bottleneck_ratio, group_width, se_ratio``.
        depths: number of blocks per stage.
        widths: channels per stage.
        group_widths: channels per group in each stage.
        strides: stride of the first block of each stage.
        bottleneck_ratios: ratio of the inner channels of a block to ``widths``, per stage.
        se_ratio: ratio of the squeezed channels to the input channels of a block; 0 disables squeeze-excitation.
        activation_class: makes an activation; called without arguments. None is ReLU.
        freeze_at: see ``freeze``.
        norm: see ``hydet.layers.get_norm``.
        out_features: names of the outputs to return; the last stage by default.
        in_channels: channels of the image.
        use_act_checkpoint: recompute each block in the backward pass instead of storing its activations.

    Raises:
        ValueError: if a list has the wrong length, or ``out_features`` has unknown names.

    Source: Radosavovic et al. 2020 (arXiv:2003.13678), section 3.2.
    """

    def __init__(
        self,
        *,
        stem_class: Callable[..., CNNBlockBase],
        stem_width: int,
        block_class: Callable[..., CNNBlockBase],
        depths: Sequence[int],
        widths: Sequence[int],
        group_widths: Sequence[int],
        strides: Sequence[int],
        bottleneck_ratios: Sequence[float],
        se_ratio: float = 0.0,
        activation_class: Activation | None = None,
        freeze_at: int = 0,
        norm: Norm = "BN",
        out_features: Sequence[str] | None = None,
        in_channels: int = 3,
        use_act_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        per_stage = {
            "widths": widths,
            "group_widths": group_widths,
            "strides": strides,
            "bottleneck_ratios": bottleneck_ratios,
        }
        for name, values in per_stage.items():
            if len(values) != len(depths):
                raise ValueError(f"{name} needs {len(depths)} values, one per stage; got {list(values)}")
        names = [f"s{i}" for i in range(1, len(depths) + 1)]
        out_features = [names[-1]] if out_features is None else out_features
        check_out_features(type(self).__name__, out_features, ["stem", *names])
        self.use_act_checkpoint = use_act_checkpoint
        make_activation = _relu if activation_class is None else activation_class
        self.stem = stem_class(
            in_channels=in_channels,
            out_channels=stem_width,
            norm=norm,
            activation_class=make_activation,
        )
        stride, width = self.stem.stride, stem_width
        channels_of, strides_of = {"stem": width}, {"stem": stride}
        for name, depth, *numbers in zip(names, depths, widths, group_widths, strides, bottleneck_ratios):
            stage_width, group_width, stage_stride, bottleneck_ratio = numbers
            blocks: OrderedDict[str, nn.Module] = OrderedDict()
            for i in range(depth):
                blocks[f"b{i + 1}"] = block_class(
                    in_channels=width,
                    out_channels=stage_width,
                    stride=stage_stride if i == 0 else 1,
                    norm=norm,
                    activation_class=make_activation,
                    bottleneck_ratio=bottleneck_ratio,
                    group_width=group_width,
                    se_ratio=se_ratio,
                )
                width = stage_width
            self.add_module(name, nn.Sequential(blocks))
            stride *= stage_stride
            channels_of[name], strides_of[name] = width, stride
        self.stage_names = tuple(names)
        self._out_features = list(out_features)
        self._out_feature_channels = {name: channels_of[name] for name in out_features}
        self._out_feature_strides = {name: strides_of[name] for name in out_features}
        self.apply(_initialize)
        self.freeze(freeze_at)


class RegNet(AnyNet):
    """An ``AnyNet`` whose widths follow a quantized linear function.

    The width ``w_0 + w_a * i`` of block ``i`` is rounded to ``w_0`` times a power of ``w_m``, then to a multiple of 8.
    Blocks of equal width form a stage.

    Args:
        stem_class: see ``AnyNet``.
        stem_width: see ``AnyNet``.
        block_class: see ``AnyNet``.
        depth: total number of blocks.
        w_a: slope of the widths.
        w_0: initial width, a multiple of 8.
        w_m: ratio of the widths of adjacent stages, above 1.
        group_width: channels per group; smaller in stages that are narrower. Widths are adjusted to multiples of it.
        stride: stride of each stage.
        bottleneck_ratio: see ``AnyNet``; the same for all stages.
        se_ratio: see ``AnyNet``.
        activation_class: see ``AnyNet``.
        freeze_at: see ``AnyNet``.
        norm: see ``AnyNet``.
        out_features: see ``AnyNet``.
        in_channels: see ``AnyNet``.
        use_act_checkpoint: see ``AnyNet``.

    Raises:
        ValueError: if the numbers do not describe a network.

    Source: Radosavovic et al. 2020 (arXiv:2003.13678), section 3.3.
    """

    def __init__(
        self,
        *,
        stem_class: Callable[..., CNNBlockBase],
        stem_width: int,
        block_class: Callable[..., CNNBlockBase],
        depth: int,
        w_a: float,
        w_0: int,
        w_m: float,
        group_width: int,
        stride: int = 2,
        bottleneck_ratio: float = 1.0,
        se_ratio: float = 0.0,
        activation_class: Activation | None = None,
        freeze_at: int = 0,
        norm: Norm = "BN",
        out_features: Sequence[str] | None = None,
        in_channels: int = 3,
        use_act_checkpoint: bool = False,
    ) -> None:
        widths, depths = quantized_widths(depth=depth, w_a=w_a, w_0=w_0, w_m=w_m)
        fitted = [fit_to_groups(width, group_width, bottleneck_ratio) for width in widths]
        super().__init__(
            stem_class=stem_class,
            stem_width=stem_width,
            block_class=block_class,
            depths=depths,
            widths=[width for width, _ in fitted],
            group_widths=[group for _, group in fitted],
            strides=[stride] * len(depths),
            bottleneck_ratios=[bottleneck_ratio] * len(depths),
            se_ratio=se_ratio,
            activation_class=activation_class,
            freeze_at=freeze_at,
            norm=norm,
            out_features=out_features,
            in_channels=in_channels,
            use_act_checkpoint=use_act_checkpoint,
        )


def quantized_widths(*, depth: int, w_a: float, w_0: int, w_m: float) -> tuple[list[int], list[int]]:
    """Return widths and depths of the stages of a ``RegNet``.

    Args:
        depth: total number of blocks.
        w_a: slope of the widths.
        w_0: initial width.
        w_m: ratio of the widths of adjacent stages.

    Raises:
        ValueError: if the numbers do not describe a network.
    """
    if depth < 1 or w_a < 0 or w_0 <= 0 or w_m <= 1 or w_0 % WIDTH_QUANTUM:
        raise ValueError(
            f"RegNet needs depth >= 1, w_a >= 0, w_m > 1 and w_0 a positive multiple of {WIDTH_QUANTUM}; "
            f"got depth={depth}, w_a={w_a}, w_0={w_0}, w_m={w_m}"
        )
    linear_widths = w_0 + w_a * np.arange(depth)
    powers = np.round(np.log(linear_widths / w_0) / np.log(w_m))
    rounded = np.round(w_0 * np.power(w_m, powers) / WIDTH_QUANTUM).astype(int) * WIDTH_QUANTUM
    widths, depths = np.unique(rounded, return_counts=True)
    return widths.tolist(), depths.tolist()


def fit_to_groups(width: int, group_width: int, bottleneck_ratio: float) -> tuple[int, int]:
    """Adjust the width of a stage so that groups divide its bottleneck.

    Args:
        width: channels of the stage.
        group_width: channels per group; reduced to the channels of the bottleneck if those are fewer.
        bottleneck_ratio: ratio of the channels of the bottleneck to the width.

    Returns:
        The adjusted width and group width.
    """
    inner = int(max(1, width * bottleneck_ratio))
    group = min(group_width, inner)
    step = group
    if bottleneck_ratio > 1:  # dividing by the ratio must give an integer
        step = math.lcm(group, Fraction(bottleneck_ratio).limit_denominator(64).numerator)
    inner = max(step, round(inner / step) * step)
    return int(inner / bottleneck_ratio), group


def _relu() -> nn.Module:
    return nn.ReLU(inplace=True)


def _initialize(module: nn.Module) -> None:
    """Fill convolutions with variance 2 / (kernel area x output channels), independent of their groups."""
    if isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
