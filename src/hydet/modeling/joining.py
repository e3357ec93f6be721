"""Construction of parts from the shapes of the feature maps that they read.

A config states the channels of a feature map once, where the map is made. A part that reads the map leaves its sizes out
and is marked with ``_partial_: true``, so it arrives as a ``functools.partial``. The model, which holds both sides, calls
the functions of this module with the output shapes of its backbone. A part that arrives as a module stays as it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn

from hydet.layers import ShapeSpec

__all__ = [
    "build_dense_head",
    "build_proposal_generator",
    "build_roi_heads",
    "build_sem_seg_head",
    "build_top_block",
    "measure_output_shape",
    "shared_channels",
]

T = TypeVar("T")
Shapes = Mapping[str, ShapeSpec]  # feature map name -> channels and stride


def build_proposal_generator(part: T | partial[T], shapes: Shapes) -> T:
    """Build a proposal generator and its head. The head gets the channels of ``in_features`` as ``in_channels``.

    Args:
        part: a module, or a partial of one such as ``RPN``. Its argument ``head`` may be a partial too.
        shapes: output shapes of the backbone.
    """
    if not isinstance(part, partial):
        return part
    built: dict[str, Any] = {}
    head = part.keywords.get("head")
    if isinstance(head, partial):
        channels = shared_channels(shapes, part.keywords.get("in_features", ()), _name(part))
        built["head"] = head(in_channels=channels)
    generator: T = part(**built)
    return generator


def build_dense_head(part: T | partial[T], shapes: Sequence[ShapeSpec]) -> T:
    """Build the head of a one-stage detector. It gets one shape per level as ``input_shape``."""
    return part(input_shape=list(shapes)) if isinstance(part, partial) else part


def build_sem_seg_head(part: T | partial[T], shapes: Shapes) -> T:
    """Build a semantic head. It gets the shapes by name as ``input_shape``."""
    return part(input_shape=dict(shapes)) if isinstance(part, partial) else part


def build_top_block(part: Any, shapes: Shapes, out_channels: int) -> Any:
    """Build the top block of a pyramid. It gets the channels of its ``in_feature`` as ``in_channels``.

    Args:
        part: a module, ``None``, or a partial of a module such as ``LastLevelP6P7``.
        shapes: output shapes of the backbone below the pyramid.
        out_channels: channels of the pyramid levels, which the top block may read instead.
    """
    if not isinstance(part, partial):
        return part
    name = inspect.signature(part).parameters["in_feature"].default
    return part(in_channels=shapes[name].channels if name in shapes else out_channels)


def build_roi_heads(part: T | partial[T], shapes: Shapes) -> T:
    """Build ROI heads and the parts of them that are partials.

    The heads of the branches get ``input_shape``, the shape of the pooled regions. The box predictor gets the output
    shape of the box head. In ``Res5ROIHeads``, the stage gets its channels, and the predictor and the mask head get the
    output shape of the stage.

    Args:
        part: a module, or a partial of one such as ``StandardROIHeads``, ``CascadeROIHeads`` or ``Res5ROIHeads``.
        shapes: output shapes of the backbone.
    """
    if not isinstance(part, partial):
        return part
    arguments: dict[str, Any] = dict(part.keywords)
    if "res5" in arguments:
        roi_heads: T = part(**_build_res5_parts(arguments, shapes, _name(part)))
        return roi_heads
    built: dict[str, Any] = {}
    plural = "s" if "box_heads" in arguments else ""  # box_heads, box_predictors: one per stage of a cascade
    head, predictor = f"box_head{plural}", f"box_predictor{plural}"
    if isinstance(arguments.get(head), partial):
        built[head] = _call(arguments[head], input_shape=_pooled_shape(arguments, "box", shapes, _name(part)))
    if isinstance(arguments.get(predictor), partial):
        box_head: nn.Module | Sequence[nn.Module] = built[head] if head in built else arguments[head]
        if not isinstance(box_head, nn.Module):
            box_head = box_head[0]  # the stages have equal heads
        pooled = _pooled_shape(arguments, "box", shapes, _name(part))
        built[predictor] = arguments[predictor](input_shape=measure_output_shape(box_head, pooled))
    for branch in ("mask", "keypoint"):
        if isinstance(arguments.get(f"{branch}_head"), partial):
            pooled = _pooled_shape(arguments, branch, shapes, _name(part))
            built[f"{branch}_head"] = _call(arguments[f"{branch}_head"], input_shape=pooled)
    roi_heads = part(**built)
    return roi_heads


def measure_output_shape(head: nn.Module, input_shape: ShapeSpec) -> ShapeSpec:
    """Return the shape of a head's output per region.

    A head may declare it as ``output_shape``. The output of any other head is measured on one region of zeros.
    """
    declared = getattr(head, "output_shape", None)
    if isinstance(declared, ShapeSpec):
        return declared
    size = (1, input_shape.channels or 1, input_shape.height or 1, input_shape.width or 1)
    weight = next(head.parameters(), torch.zeros(()))
    was_training = head.training
    head.eval()  # batch normalization must not learn from the zeros
    with torch.no_grad():
        channels, *rest = head(weight.new_zeros(size)).shape[1:]
    head.train(was_training)
    return (
        ShapeSpec(channels=channels, height=rest[0], width=rest[1]) if rest else ShapeSpec(channels=channels)
    )


def shared_channels(shapes: Shapes, names: Sequence[str], reader: str) -> int:
    """Return the number of channels that the named feature maps have in common.

    Raises:
        ValueError: if a name is unknown, or the maps differ in their channels; names ``reader``.
    """
    if not names:
        raise ValueError(
            f"{reader} needs the names of its feature maps; the backbone produces {list(shapes)}"
        )
    missing = [name for name in names if name not in shapes]
    if missing:
        raise ValueError(f"{reader} reads the feature maps {missing}; the backbone produces {list(shapes)}")
    channels = {name: shapes[name].channels for name in names}
    if len(set(channels.values())) != 1 or None in channels.values():
        raise ValueError(
            f"{reader} shares weights between levels, so they need equal channels, got {channels}"
        )
    return next(iter(channels.values())) or 0


def _build_res5_parts(arguments: Mapping[str, Any], shapes: Shapes, reader: str) -> dict[str, Any]:
    """Build the stage, predictor and mask head of ``Res5ROIHeads`` where they are partials."""
    built: dict[str, Any] = {}
    channels = shared_channels(shapes, arguments.get("in_features", ()), reader)
    stage = arguments["res5"]
    if isinstance(stage, partial):
        # As in the backbone: each stage has twice the channels, its bottlenecks a quarter of them.
        stage = stage(in_channels=channels, bottleneck_channels=channels // 2, out_channels=2 * channels)
        built["res5"] = stage
    module = stage if isinstance(stage, nn.Module) else nn.Sequential(*stage)
    height, width = arguments["pooler"].output_size
    stage_shape = measure_output_shape(module, ShapeSpec(channels=channels, height=height, width=width))
    if isinstance(arguments.get("box_predictor"), partial):
        # The predictor reads the mean over the cells of a region.
        built["box_predictor"] = arguments["box_predictor"](
            input_shape=ShapeSpec(channels=stage_shape.channels)
        )
    if isinstance(arguments.get("mask_head"), partial):
        built["mask_head"] = _call(arguments["mask_head"], input_shape=stage_shape)
    return built


def _pooled_shape(arguments: Mapping[str, Any], branch: str, shapes: Shapes, reader: str) -> Any:
    """Return the shape of the pooled regions of a branch; without a pooler, the shapes of its feature maps by name."""
    names, pooler = arguments.get(f"{branch}_in_features", ()), arguments.get(f"{branch}_pooler")
    if pooler is None:
        return {name: shapes[name] for name in names}
    height, width = pooler.output_size
    return ShapeSpec(channels=shared_channels(shapes, names, reader), height=height, width=width)


def _call(factory: partial[T], **sizes: Any) -> T:
    """Call a factory with those of ``sizes`` that it accepts; a custom part may define its sizes itself."""
    target = factory.keywords.get("make", factory)  # see ``make_each``
    parameters = inspect.signature(target).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return factory(**sizes)
    return factory(**{name: size for name, size in sizes.items() if name in parameters})


def _name(part: partial[Any]) -> str:
    return getattr(part.func, "__name__", type(part.func).__name__)
