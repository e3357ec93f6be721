"""Translation of ``hydet::nms_padded`` to ONNX, whose suppression is batched and grouped too."""

# The operators of onnxscript are typed too narrowly for values that are known only in the graph.
# mypy: ignore-errors
from __future__ import annotations

from typing import Any

import torch
from onnxscript import INT64
from onnxscript import opset18 as op

__all__ = ["OPSET", "TRANSLATIONS"]

OPSET = 18
LOWEST = -3.4028234e38  # only scores above it take part in the suppression, so minus infinity excludes a box

# B images, N boxes per image, G groups, K outputs per image, S selected boxes of all images.


def nms_padded(boxes, scores, groups, valid, iou_threshold: float, max_outputs: int):
    """Compute ``hydet::nms_padded`` (see there) by ``NonMaxSuppression``, with one class per group.

    The operator returns the selected boxes of all images in a list, so their scores are written back to a table
    ``(B, N)``, from which ``TopK`` takes the best. It prefers the first of equal scores, as hydet does.
    """
    nothing = op.Constant(value_float=float("-inf"))
    zero, step = op.Constant(value_int=0), op.Constant(value_int=1)
    axis = op.Constant(value_ints=[1])
    ranking = op.CastLike(scores, nothing)
    if valid is not None:
        ranking = op.Where(valid, ranking, nothing)
    by_group = op.Unsqueeze(ranking, axis)  # (B, 1, N)
    if groups is not None:
        flat = op.Reshape(groups, op.Constant(value_ints=[-1]))
        count = op.Add(op.ReduceMax(op.Concat(flat, op.Constant(value_ints=[0]), axis=0), keepdims=0), step)
        numbers = op.Reshape(op.Range(zero, count, step), op.Constant(value_ints=[1, -1, 1]))
        by_group = op.Where(op.Equal(op.Unsqueeze(groups, axis), numbers), by_group, nothing)  # (B, G, N)
    limit = op.Reshape(op.Cast(max_outputs, to=INT64.dtype), op.Constant(value_ints=[1]))
    selected = op.NonMaxSuppression(
        op.CastLike(boxes, nothing),
        by_group,
        limit,
        op.Constant(value_floats=[iou_threshold]),
        op.Constant(value_floats=[LOWEST]),
    )  # (S, 3): image, group, box
    entries = op.Gather(selected, op.Constant(value_ints=[0, 2]), axis=1)
    empty = op.Expand(nothing, op.Shape(scores))
    survivors = op.ScatterND(empty, entries, op.GatherND(ranking, entries))  # (B, N)
    best, order = op.TopK(survivors, op.Min(limit, op.Shape(scores, start=1, end=2)), axis=1)
    is_filled = op.Greater(best, nothing)
    counts = op.ReduceSum(op.Cast(is_filled, to=INT64.dtype), axis, keepdims=0)
    return op.Where(is_filled, order, zero), counts


TRANSLATIONS: dict[Any, Any] = {torch.ops.hydet.nms_padded.default: nms_padded}
