"""Pixel statistics and anchors in weight files of 2019 and 2020, which models compute from their arguments."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["StoredConstants", "compare_constants"]

# Name in a file -> name of a buffer in the model.
_PIXELS = re.compile(r"(?:.+\.)?pixel_(?:mean|std)")
_ANCHORS = re.compile(r"(?P<owner>.+\.)?cell_anchors\.(?P<level>[0-9]{1,3})")
# Files keep float32 values. Some tools rounded the statistics; no two published ones are that close.
_RELATIVE, _ABSOLUTE = 1e-3, 1e-3


@dataclass(frozen=True)
class StoredConstants:
    """The constants in a file, none of which is loaded.

    Args:
        names: names of the constants in the file.
        differences: one sentence for each constant that has another value in the model, by name.
    """

    names: tuple[str, ...]
    differences: Mapping[str, str]

    def explain(self) -> str:
        """Return the differences on one line: all pixel statistics, and the first of the anchors."""
        pixels = [text for name, text in self.differences.items() if _PIXELS.fullmatch(name)]
        return "; ".join(pixels or list(self.differences.values())[:1])


def compare_constants(model: nn.Module, weights: Mapping[str, Tensor]) -> StoredConstants:
    """Compare constants in a file with those of the model.

    Args:
        model: the model. Names that it has in its state dict, or not at all, are left out.
        weights: content of the file.
    """
    state = model.state_dict()
    buffers = dict(model.named_buffers())
    names, differences = [], {}
    for name, value in weights.items():
        buffer = buffers.get(_buffer_name(name)) if name not in state else None
        if buffer is None or _buffer_name(name) in state:
            continue
        names.append(name)
        if not _are_close(value, buffer):
            differences[name] = _explain(name, value, buffer)
    return StoredConstants(tuple(names), differences)


def _buffer_name(name: str) -> str:
    if _PIXELS.fullmatch(name):
        return name
    anchors = _ANCHORS.fullmatch(name)
    return f"{anchors['owner'] or ''}cell_anchors_{anchors['level']}" if anchors else ""


def _are_close(value: Tensor, buffer: Tensor) -> bool:
    if value.numel() != buffer.numel() or value.is_complex():
        return False
    expected = buffer.detach().cpu().double().flatten()
    return torch.allclose(value.detach().cpu().double().flatten(), expected, rtol=_RELATIVE, atol=_ABSOLUTE)


def _explain(name: str, value: Tensor, buffer: Tensor) -> str:
    if not _PIXELS.fullmatch(name):
        return (
            f"{name} has other anchors in the file ({_numbers(value)}) than in the model ({_numbers(buffer)}), and "
            "weights predict offsets from their own anchors; set sizes and aspect_ratios of the anchor_generator"
        )
    setting = name.rpartition(".")[2]
    line = (
        f"{setting} is {_numbers(value)} in the file and {_numbers(buffer)} in the model, which changes every result; "
        f"set {setting}={_numbers(value)}"
    )
    if value.numel() == buffer.numel() and _are_close(value.flatten().flip(0), buffer):
        line += " and the input_format (RGB or BGR) of the weights: the channels are in reverse order"
    return line


def _numbers(values: Tensor) -> str:
    shown = [f"{number:.6g}" for number in values.detach().flatten()[:4].tolist()]
    return f"[{','.join(shown)}{',...' if values.numel() > 4 else ''}]"
