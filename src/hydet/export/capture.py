"""Capture a model as a program of ``torch.export``, and lower hydet's ops to operators of PyTorch and torchvision."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.fx.experimental._config as symbolic_config
from torch.export import Dim, ExportedProgram

from hydet.kernels.nms_padded.plain_impl import forward_plain as plain_nms_padded
from hydet.kernels.roi_align.plain_impl import forward_plain as plain_roi_align

from .inference_graph import InferenceGraph

__all__ = ["capture", "lower_ops", "remaining_ops"]

SMALLEST_SIDE = 32  # of an image, in pixels


def capture(graph: InferenceGraph, size: tuple[int, int] | None, device: torch.device) -> ExportedProgram:
    """Trace the graph without running it on real images.

    Args:
        graph: in evaluation mode.
        size: (height, width) of all images; None for any size.
        device: device of the graph.

    Returns:
        A program with any number of images, in which hydet's ops are single nodes.
    """
    largest = graph.square_size or 10_000
    height, width = size or (min(160, largest), min(224, largest))
    images = torch.zeros(2, 3, height, width, dtype=torch.uint8, device=device)
    sizes = torch.tensor([[height, width], [height - 1, width - 1]], device=device)
    batch = Dim("batch", min=1)
    shape: dict[int, Any] = {0: batch}
    if size is None:
        limits = {"max": graph.square_size} if graph.square_size else {}
        shape |= {
            2: Dim("height", min=SMALLEST_SIDE, **limits),
            3: Dim("width", min=SMALLEST_SIDE, **limits),
        }
    with torch.no_grad(), _allow_size_1():
        program = torch.export.export(
            graph,
            (images, sizes),
            dynamic_shapes=(shape, {0: batch}),
            strict=False,
            prefer_deferred_runtime_asserts_over_guards=True,
        )
    return _without_checks_of_strides(program)


def _allow_size_1() -> AbstractContextManager[None]:
    """Return a context in which sizes within a graph may be 1.

    By default, torch assumes that every size is above 1, also that of the coarsest feature map, which excludes images of
    less than 129 pixels.
    """
    context: AbstractContextManager[None] = symbolic_config.patch(backed_size_oblivious=True)  # type: ignore[attr-defined]
    return context


def _without_checks_of_strides(program: ExportedProgram) -> ExportedProgram:
    """Remove the runtime checks that reject feature maps of one cell.

    Torch assumes more than one cell when it compares strides, and adds checks of that assumption. The strides of a single
    cell have no effect, and small images have such maps. Only these checks contain ``Max(1, size)``.
    """
    for node in list(program.graph.nodes):
        if node.target is torch.ops.aten._assert_scalar.default and "Max(1, " in str(node.args[1]):
            program.graph.erase_node(node)
    program.graph.eliminate_dead_code()
    program.graph_module.recompile()
    return program


def lower_ops(program: ExportedProgram, *, keep_suppression: bool = False) -> ExportedProgram:
    """Replace hydet's ops for upright boxes by operators that a process without hydet has.

    Args:
        program: from ``capture``.
        keep_suppression: leave ``hydet::nms_padded``, which has a translation to ONNX of its own.
    """
    table: dict[Any, Callable[..., Any]] = {torch.ops.hydet.roi_align.default: plain_roi_align}
    if not keep_suppression:
        table[torch.ops.hydet.nms_padded.default] = plain_nms_padded
    with torch.no_grad(), _allow_size_1():
        lowered: ExportedProgram = program.run_decompositions(table)
    return _without_checks_of_strides(lowered)


def remaining_ops(program: ExportedProgram) -> list[str]:
    """Return the names of hydet's ops in the program, such as ``"hydet::nms_rotated_padded"``."""
    names = set()
    for node in program.graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload) and node.target.namespace == "hydet":
            names.add(str(node.target._schema.name))
    return sorted(names)
