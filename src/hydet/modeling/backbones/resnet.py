"""Residual networks (ResNet, ResNeXt)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hydet.layers import CNNBlockBase, ShapeSpec

from .backbone import check_out_features
from .resnet_blocks import BasicBlock, BasicStem, BottleneckBlock, DeformBottleneckBlock, Norm
from .staged_backbone import StagedBackbone

__all__ = ["ResNet", "make_resnet"]

BLOCKS_PER_STAGE = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


class ResNet(StagedBackbone):
    """A stem followed by stages of residual blocks, named ``stem``, ``res2``, ``res3``, ...

    Args:
        stem: first layers, such as ``BasicStem``; has ``out_channels`` and ``stride``.
        stages: blocks of each stage, as ``make_stage`` returns them. Stages after the last one in ``out_features`` are
            dropped.
        num_classes: if given, a linear classifier named ``linear`` follows the last stage.
        out_features: names of the outputs to return, from ``stem``, ``res2``, ... and ``linear``; the last one by
            default.
        freeze_at: see ``freeze``.
        use_act_checkpoint: recompute each block in the backward pass instead of storing its activations.

    Raises:
        ValueError: if a stage is empty, channels of consecutive blocks differ, or ``out_features`` has unknown names.
        TypeError: if a block is not a ``CNNBlockBase``.

    Source: He et al. 2015 (arXiv:1512.03385).
    """

    def __init__(
        self,
        *,
        stem: CNNBlockBase,
        stages: Sequence[Sequence[CNNBlockBase]],
        num_classes: int | None = None,
        out_features: Sequence[str] | None = None,
        freeze_at: int = 0,
        use_act_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        names = [f"res{i}" for i in range(2, 2 + len(stages))]
        if not names:
            raise ValueError("ResNet needs at least one stage")
        if out_features is None:
            out_features = ["linear" if num_classes is not None else names[-1]]
        classifier = [] if num_classes is None else ["linear"]
        check_out_features("ResNet", out_features, ["stem", *names, *classifier])
        requested = [i for i, name in enumerate(names, start=1) if name in out_features]
        if requested or num_classes is None:  # a classifier without other outputs reads the last stage
            names = names[: max(requested, default=0)]

        self.stem = stem
        self.num_classes = num_classes
        self.use_act_checkpoint = use_act_checkpoint
        self.stage_names = tuple(names)
        strides, channels = {"stem": stem.stride}, {"stem": stem.out_channels}
        stride, width = stem.stride, stem.out_channels
        for name, blocks in zip(names, stages):
            self._check_stage(name, blocks, width)
            self.add_module(name, nn.Sequential(*blocks))
            for block in blocks:
                stride *= block.stride
            width = blocks[-1].out_channels
            strides[name], channels[name] = stride, width
        if num_classes is not None:
            self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
            self.linear = nn.Linear(width, num_classes)
            nn.init.normal_(self.linear.weight, std=0.01)
            channels["linear"] = num_classes
        self._out_features = list(out_features)
        self._out_feature_channels = {name: channels[name] for name in out_features}
        self._out_feature_strides = {name: strides.get(name) for name in out_features}
        self.freeze(freeze_at)

    @staticmethod
    def _check_stage(name: str, blocks: Sequence[CNNBlockBase], width: int) -> None:
        if not blocks:
            raise ValueError(f"ResNet: {name} has no blocks")
        for i, block in enumerate(blocks):
            if not isinstance(block, CNNBlockBase):
                raise TypeError(f"ResNet: {name} must hold CNNBlockBase modules, got {type(block).__name__}")
            if block.in_channels != width:
                raise ValueError(
                    f"ResNet: block {i} of {name} takes {block.in_channels} channels, but its input has {width}"
                )
            width = block.out_channels

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the feature maps and, if requested, the class logits.

        Args:
            x: ``(N, C, H, W)`` images of any size.

        Returns:
            ``(N, C_l, H / stride, W / stride)`` by name, rounded up, from fine to coarse; ``linear`` is
            ``(N, num_classes)``.

        Raises:
            ValueError: if ``x`` does not have four axes.
        """
        outputs, x = self._run_stages(x)
        if "linear" in self._out_features:
            outputs["linear"] = self.linear(torch.flatten(self.avgpool(x), 1))
        return outputs

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Return channels and stride of each output, in the order of ``out_features``; ``linear`` has no stride."""
        return super().output_shape()

    @staticmethod
    def make_stage(
        block_class: Callable[..., CNNBlockBase],
        num_blocks: int,
        *,
        in_channels: int,
        out_channels: int,
        **kwargs: Any,
    ) -> list[CNNBlockBase]:
        """Make the blocks of one stage.

        Args:
            block_class: called once per block.
            num_blocks: number of blocks.
            in_channels: channels of the input of the stage.
            out_channels: channels of the output of each block.
            **kwargs: arguments of ``block_class``; ``xx_per_block`` is a list with a value of ``xx`` for each block
                (``dilations_per_block`` is an alias of ``dilation_per_block``).

        Raises:
            ValueError: if such a list has the wrong length, or ``xx`` is given as well.

        Example::

            ResNet.make_stage(
                BottleneckBlock, 3, in_channels=16, out_channels=64, bottleneck_channels=16,
                stride_per_block=[2, 1, 1], dilation_per_block=[1, 1, 2],
            )
        """
        if "dilations_per_block" in kwargs:
            kwargs["dilation_per_block"] = kwargs.pop("dilations_per_block")
        values_per_block: dict[str, Sequence[Any]] = {}
        for key in [key for key in kwargs if key.endswith("_per_block")]:
            values, name = kwargs.pop(key), key.removesuffix("_per_block")
            if len(values) != num_blocks:
                raise ValueError(f"{key} needs {num_blocks} values, one per block; got {values}")
            if name in kwargs:
                raise ValueError(f"make_stage: pass either {name} or {key}, not both")
            values_per_block[name] = values
        blocks = []
        for i in range(num_blocks):
            options = {name: values[i] for name, values in values_per_block.items()}
            blocks.append(
                block_class(in_channels=in_channels, out_channels=out_channels, **options, **kwargs)
            )
            in_channels = out_channels
        return blocks

    @staticmethod
    def make_default_stages(
        depth: int, block_class: Callable[..., CNNBlockBase] | None = None, **kwargs: Any
    ) -> list[list[CNNBlockBase]]:
        """Make the four stages of a published ResNet.

        Args:
            depth: 18, 34, 50, 101 or 152.
            block_class: ``BasicBlock`` below depth 50 and ``BottleneckBlock`` otherwise by default; from depth 50 on it
                receives ``bottleneck_channels``.
            **kwargs: arguments of ``make_stage`` other than strides and channels.
        """
        counts = _blocks_per_stage(depth)
        if depth < 50:
            block_class = block_class or BasicBlock
            widths = [64, 128, 256, 512]
        else:
            block_class = block_class or BottleneckBlock
            widths = [256, 512, 1024, 2048]
        stages = []
        for i, (count, previous_width, width) in enumerate(zip(counts, [64, *widths[:-1]], widths)):
            options = {"bottleneck_channels": width // 4} if depth >= 50 else {}
            stages.append(
                ResNet.make_stage(
                    block_class,
                    count,
                    in_channels=previous_width,
                    out_channels=width,
                    stride_per_block=[1 if i == 0 else 2] + [1] * (count - 1),
                    **options,
                    **kwargs,
                )
            )
        return stages


def _blocks_per_stage(depth: int) -> tuple[int, ...]:
    if depth not in BLOCKS_PER_STAGE:
        raise ValueError(f"depth must be one of {sorted(BLOCKS_PER_STAGE)}, got {depth!r}")
    return BLOCKS_PER_STAGE[depth]


def make_resnet(
    *,
    depth: int,
    in_channels: int = 3,
    stem_out_channels: int = 64,
    norm: Norm = "FrozenBN",
    num_groups: int = 1,
    width_per_group: int = 64,
    stride_in_1x1: bool = True,
    res5_dilation: int = 1,
    res2_out_channels: int | None = None,
    deform_on_per_stage: Sequence[bool] = (False,) * 4,
    deform_modulated: bool = False,
    deform_num_groups: int = 1,
    out_features: Sequence[str] = ("res4",),
    freeze_at: int = 2,
    use_act_checkpoint: bool = False,
) -> ResNet:
    """Make a ResNet or ResNeXt of a published depth.

    Args:
        depth: 18, 34, 50, 101 or 152.
        in_channels: channels of the image.
        stem_out_channels: channels of the stem.
        norm: see ``hydet.layers.get_norm``.
        num_groups: groups of the 3x3 convolutions; 32 with ``width_per_group=8`` is ResNeXt 32x8d.
        width_per_group: channels per group in ``res2``, doubled with every stage.
        stride_in_1x1: see ``BottleneckBlock``.
        res5_dilation: 1, or 2 for a last stage with dilation instead of stride ("DC5").
        res2_out_channels: channels of ``res2``, doubled with every stage; by default those of the paper.
        deform_on_per_stage: for each of ``res2`` to ``res5``, True to build it from ``DeformBottleneckBlock``.
        deform_modulated: see ``DeformBottleneckBlock``.
        deform_num_groups: see ``DeformBottleneckBlock``.
        out_features: see ``ResNet``.
        freeze_at: see ``ResNet``.
        use_act_checkpoint: see ``ResNet``.

    Raises:
        ValueError: if the depth is unknown, or if groups or deformable stages are requested for ResNet-18 or 34.
    """
    counts = _blocks_per_stage(depth)
    if len(deform_on_per_stage) != len(counts):
        raise ValueError(f"deform_on_per_stage needs {len(counts)} values, got {deform_on_per_stage}")
    if res5_dilation not in (1, 2):
        raise ValueError(f"res5_dilation must be 1 or 2, got {res5_dilation}")
    bottleneck = depth >= 50
    if not bottleneck and (num_groups != 1 or any(deform_on_per_stage)):
        raise ValueError(f"ResNet-{depth} supports neither groups nor deformable stages; use depth >= 50")
    check_out_features("make_resnet", out_features, ["stem", "res2", "res3", "res4", "res5"])

    stages, previous_width = [], stem_out_channels
    width = res2_out_channels if res2_out_channels is not None else (256 if bottleneck else 64)
    inner = num_groups * width_per_group
    last = max((int(name[3:]) for name in out_features if name != "stem"), default=1)
    for i, count in enumerate(counts[: last - 1]):
        dilation = res5_dilation if i == 3 else 1
        stride = 1 if i == 0 or dilation == 2 else 2
        block: Callable[..., CNNBlockBase] = BasicBlock
        options: dict[str, int | bool] = {"dilation": dilation}
        if bottleneck:
            block = BottleneckBlock
            options |= {
                "bottleneck_channels": inner,
                "stride_in_1x1": stride_in_1x1,
                "num_groups": num_groups,
            }
        if deform_on_per_stage[i]:
            block = DeformBottleneckBlock
            options |= {"deform_modulated": deform_modulated, "deform_num_groups": deform_num_groups}
        stages.append(
            ResNet.make_stage(
                block,
                count,
                in_channels=previous_width,
                out_channels=width,
                stride_per_block=[stride] + [1] * (count - 1),
                norm=norm,
                **options,
            )
        )
        previous_width, width, inner = width, 2 * width, 2 * inner
    return ResNet(
        stem=BasicStem(in_channels=in_channels, out_channels=stem_out_channels, norm=norm),
        stages=stages,
        out_features=out_features,
        freeze_at=freeze_at,
        use_act_checkpoint=use_act_checkpoint,
    )
