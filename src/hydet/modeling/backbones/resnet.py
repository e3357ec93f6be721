"""Residual networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hydet.layers import CNNBlockBase

from .backbone import Backbone
from .resnet_blocks import BasicBlock, BasicStem, BottleneckBlock, DeformBottleneckBlock, Norm

__all__ = ["ResNet", "make_resnet", "resnet_channels"]

BLOCKS_PER_STAGE = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


class ResNet(Backbone):
    """A stem and residual stages ``res2``, ``res3``, …

    Args:
        stem: maps the image to the first stage's input; has ``out_channels`` and ``stride``.
        stages: a list of blocks for each stage. Those beyond the last one asked for are dropped.
        num_classes: classify globally pooled features as ``linear``; ``None`` for no classifier.
        out_features: names to return, of ``stem``, ``res2`` … and ``linear``; by default the last there is.
        freeze_at: see ``freeze``.

    Source: He et al. 2015 (arXiv:1512.03385).
    """

    def __init__(
        self,
        *,
        stem: nn.Module,
        stages: Sequence[Sequence[CNNBlockBase]],
        num_classes: int | None = None,
        out_features: Sequence[str] | None = None,
        freeze_at: int = 0,
    ) -> None:
        super().__init__()
        names = [f"res{i + 2}" for i in range(len(stages))]
        known = ["stem", *names] + ([] if num_classes is None else ["linear"])
        wanted = [known[-1]] if out_features is None else list(out_features)
        unknown = [name for name in wanted if name not in known]
        if unknown or not wanted:
            raise ValueError(f"ResNet: out_features has {unknown or 'nothing'}; there are {known}")
        if num_classes is None:
            depth = max((names.index(n) + 1 for n in wanted if n in names), default=0)
            names, stages = names[:depth], list(stages)[:depth]

        self.stem = stem
        self.num_classes = num_classes
        self._out_feature_strides = {"stem": stem.stride}  # type: ignore[dict-item]
        self._out_feature_channels = {"stem": stem.out_channels}  # type: ignore[dict-item]
        self.stage_names = tuple(names)
        self.stages: list[nn.Sequential] = []
        stride, channels = stem.stride, stem.out_channels
        for name, blocks in zip(names, stages, strict=True):
            if not blocks:
                raise ValueError(f"ResNet: stage {name} has no blocks")
            for block in blocks:
                if not isinstance(block, CNNBlockBase):
                    raise TypeError(f"ResNet: {name} needs CNNBlockBase, got {type(block).__name__}")
            stage = nn.Sequential(*blocks)
            self.add_module(name, stage)
            self.stages.append(stage)
            for block in blocks:
                stride = stride * block.stride  # type: ignore[operator]
            channels = blocks[-1].out_channels
            self._out_feature_strides[name] = stride  # type: ignore[assignment]
            self._out_feature_channels[name] = channels
        if num_classes is not None:
            self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
            self.linear = nn.Linear(channels, num_classes)  # type: ignore[arg-type]
            nn.init.normal_(self.linear.weight, std=0.01)
            self._out_feature_strides["linear"] = stride  # type: ignore[assignment]
            self._out_feature_channels["linear"] = num_classes
        self._out_features = wanted
        self.freeze(freeze_at)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """``(B, C, H, W)`` images to the maps in ``out_features``, and ``linear``: ``(B, num_classes)`` logits."""
        if x.dim() != 4:
            raise ValueError(f"ResNet takes (B, C, H, W), got shape {tuple(x.shape)}")
        outputs = {}
        x = self.stem(x)
        if "stem" in self._out_features:
            outputs["stem"] = x
        for name in self.stage_names:
            x = getattr(self, name)(x)
            if name in self._out_features:
                outputs[name] = x
        if self.num_classes is not None and "linear" in self._out_features:
            outputs["linear"] = self.linear(torch.flatten(self.avgpool(x), 1))
        return outputs

    def freeze(self, freeze_at: int = 0) -> ResNet:
        """Freeze the stem (from 1 on) and the first ``freeze_at - 1`` stages; returns the network."""
        if freeze_at >= 1:
            self.stem.freeze()  # type: ignore[operator]
        for i, stage in enumerate(self.stages, start=2):
            if freeze_at >= i:
                for block in stage:
                    block.freeze()  # type: ignore[operator]
        return self

    @staticmethod
    def make_stage(
        block_class: Callable[..., CNNBlockBase],
        num_blocks: int,
        *,
        in_channels: int,
        out_channels: int,
        **kwargs: Any,
    ) -> list[CNNBlockBase]:
        """Blocks of one kind in a row.

        Args:
            block_class: makes one block.
            num_blocks: how many.
            in_channels: of the first; the others take ``out_channels``.
            out_channels: of each.
            **kwargs: for every block; ``x_per_block`` is a list of values of ``x`` (for a plural ``x`` like
                ``dilations_per_block`` the singular is passed).

        Raises:
            ValueError: if such a list has another length than ``num_blocks``, or ``x`` is given both ways.
        """
        common, varying = {}, {}
        for key, value in kwargs.items():
            if not key.endswith("_per_block"):
                common[key] = value
                continue
            name = key.removesuffix("_per_block")
            if name == "dilations":
                name = "dilation"
            if name in kwargs or name in varying:
                raise ValueError(f"make_stage: {name!r} is given twice, also as {key!r}")
            if len(value) != num_blocks:
                raise ValueError(f"make_stage: {key!r} has {len(value)} values for {num_blocks} blocks")
            varying[name] = value
        return [
            block_class(
                in_channels=in_channels if i == 0 else out_channels,
                out_channels=out_channels,
                **common,
                **{name: values[i] for name, values in varying.items()},
            )
            for i in range(num_blocks)
        ]

    @staticmethod
    def make_default_stages(
        depth: int, block_class: Callable[..., CNNBlockBase] | None = None, **kwargs: Any
    ) -> list[list[CNNBlockBase]]:
        """The four stages of a ResNet of standard depth.

        Args:
            depth: 18, 34, 50, 101 or 152.
            block_class: by default ``BasicBlock`` below 50, else ``BottleneckBlock``.
            **kwargs: for ``make_stage``; strides and channels are given by the depth.
        """
        if depth not in BLOCKS_PER_STAGE:
            raise ValueError(f"depth must be one of {sorted(BLOCKS_PER_STAGE)}, got {depth}")
        if block_class is None:
            block_class = BasicBlock if depth < 50 else BottleneckBlock
        width = 64 if depth < 50 else 256
        stages, in_channels = [], 64
        for i, num_blocks in enumerate(BLOCKS_PER_STAGE[depth]):
            out_channels = width * 2**i
            bottleneck = {} if depth < 50 else {"bottleneck_channels": out_channels // 4}
            stages.append(
                ResNet.make_stage(
                    block_class,
                    num_blocks,
                    in_channels=in_channels,
                    out_channels=out_channels,
                    stride_per_block=[1 if i == 0 else 2] + [1] * (num_blocks - 1),
                    **(bottleneck | kwargs),
                )
            )
            in_channels = out_channels
        return stages


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
    deform_on_per_stage: Sequence[bool] = (False, False, False, False),
    deform_modulated: bool = False,
    deform_num_groups: int = 1,
    out_features: Sequence[str] = ("res4",),
    freeze_at: int = 2,
) -> ResNet:
    """A ResNet or ResNeXt from a handful of numbers.

    Args:
        depth: 18, 34, 50, 101 or 152.
        in_channels: of the image.
        stem_out_channels: of the stem.
        norm: see ``get_norm``.
        num_groups: of the 3x3 convolutions; 32 in ResNeXt.
        width_per_group: channels of each group in ``res2``, doubled from stage to stage.
        stride_in_1x1: see ``BottleneckBlock``.
        res5_dilation: 2 keeps ``res5`` at stride 16.
        res2_out_channels: doubled from stage to stage; by default 64 below depth 50, else 256.
        deform_on_per_stage: whether ``res2`` … ``res5`` use ``DeformBottleneckBlock``.
        deform_modulated: see there.
        deform_num_groups: see there.
        out_features: see ``ResNet``; later stages are not built.
        freeze_at: see ``ResNet.freeze``.

    Raises:
        ValueError: if an argument does not go with basic blocks (depth 18 and 34).
    """
    if depth not in BLOCKS_PER_STAGE:
        raise ValueError(f"depth must be one of {sorted(BLOCKS_PER_STAGE)}, got {depth}")
    if res5_dilation not in (1, 2):
        raise ValueError(f"res5_dilation must be 1 or 2, got {res5_dilation}")
    if len(deform_on_per_stage) != 4:
        raise ValueError(f"deform_on_per_stage needs 4 values, got {len(deform_on_per_stage)}")
    basic = depth < 50
    if basic and (num_groups != 1 or any(deform_on_per_stage)):
        raise ValueError(f"depth {depth} has basic blocks: neither groups nor deformable convolutions")
    out_channels = res2_out_channels or (64 if basic else 256)
    bottleneck = num_groups * width_per_group
    in_width, stages = stem_out_channels, []
    last = max((int(n[3:]) for n in out_features if n.startswith("res")), default=1)
    for stage, num_blocks in enumerate(BLOCKS_PER_STAGE[depth][: last - 1], start=2):
        dilation = res5_dilation if stage == 5 else 1
        strides = stage > 2 and dilation == 1
        kwargs: dict[str, Any] = {"dilation": dilation}
        block: Callable[..., CNNBlockBase] = BasicBlock
        if not basic:
            block = BottleneckBlock
            kwargs = {
                "bottleneck_channels": bottleneck,
                "num_groups": num_groups,
                "stride_in_1x1": stride_in_1x1,
                "dilation": dilation,
            }
            if deform_on_per_stage[stage - 2]:
                block = DeformBottleneckBlock
                kwargs |= {"deform_modulated": deform_modulated, "deform_num_groups": deform_num_groups}
        stages.append(
            ResNet.make_stage(
                block,
                num_blocks,
                in_channels=in_width,
                out_channels=out_channels,
                norm=norm,
                stride_per_block=[2 if strides else 1] + [1] * (num_blocks - 1),
                **kwargs,
            )
        )
        in_width, out_channels, bottleneck = out_channels, out_channels * 2, bottleneck * 2
    stem = BasicStem(in_channels=in_channels, out_channels=stem_out_channels, norm=norm)
    return ResNet(stem=stem, stages=stages, out_features=out_features, freeze_at=freeze_at)


def resnet_channels(*, res2_out_channels: int, feature: str) -> int:
    """Channels of ``res2`` … ``res5``, which double from stage to stage."""
    if feature not in ("res2", "res3", "res4", "res5"):
        raise ValueError(f"feature must be res2, res3, res4 or res5, got {feature!r}")
    return res2_out_channels * 2 ** (int(feature[3:]) - 2)
