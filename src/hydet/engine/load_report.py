"""Report which tensors of a file fit a model, and explain those that do not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from torch import nn

from .checkpoint_folder import Checkpoint

__all__ = ["LoadReport", "ShapePair", "explain_names", "explain_shapes", "shorten_list"]

MAX_NAMES = 4


class ShapePair(NamedTuple):
    """Shapes of one tensor."""

    in_file: tuple[int, ...]
    in_model: tuple[int, ...]


@dataclass(frozen=True)
class LoadReport:
    """Names of the tensors that were loaded, and of those that were not.

    Attributes:
        path: source of the weights.
        loaded: names of the tensors that the model now has from the source.
        inflated: those of ``loaded`` that are convolutions of RGB images and were converted to another number of
            channels (see ``hydet.modeling.inflate_input_weights``).
        mismatched: tensors with another shape, which keep their old values.
        missing: names of tensors that only the model has, which keep their old values.
        unexpected: names of tensors that only the source has.
        differing: pixel statistics and anchors that have other values in the source; the model keeps its own.
    """

    path: Path
    loaded: tuple[str, ...] = ()
    inflated: dict[str, ShapePair] = field(default_factory=dict)
    mismatched: dict[str, ShapePair] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    differing: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"loaded {len(self.loaded)} tensors from {self.path}"]
        if self.inflated:
            lines.append(f"converted from RGB to other channels: {', '.join(_describe(self.inflated))}")
        if self.mismatched:
            lines.append(f"not loaded because of their shape: {', '.join(_describe(self.mismatched))}")
        if self.missing:
            lines.append(f"not in the file: {', '.join(self.missing)}")
        if self.unexpected:
            lines.append(f"only in the file: {', '.join(self.unexpected)}")
        if self.differing:
            lines.append(f"other values in the file, which were not used: {', '.join(self.differing)}")
        return "\n".join(lines)


def explain_names(report: LoadReport) -> str:
    """Return a line about the names that only the file or only the model has."""
    parts = []
    if report.missing:
        parts.append(f"it lacks {len(report.missing)} of the model's tensors: {shorten_list(report.missing)}")
    if report.unexpected:
        parts.append(
            f"the model lacks {len(report.unexpected)} of its tensors: {shorten_list(report.unexpected)}"
        )
    return f"{report.path} does not fit the model: {'; '.join(parts)}"


def explain_shapes(model: nn.Module, report: LoadReport, checkpoint: Checkpoint | None) -> str:
    """Return a line about the tensors of another shape, and the numbers of classes if they are the cause."""
    shapes = shorten_list(_describe(report.mismatched))
    file_classes, model_classes = _classes_of_file(report, checkpoint), _classes_of_model(model)
    if file_classes is not None and model_classes is not None and file_classes != model_classes:
        return f"{report.path}: checkpoint has {file_classes} classes, model {model_classes}: {shapes}"
    return f"{report.path} does not fit the model (file -> model): {shapes}"


def shorten_list(names: Iterable[str]) -> str:
    """Return the first few names and the number of the others."""
    names = list(names)
    more = len(names) - MAX_NAMES
    return ", ".join(names[:MAX_NAMES]) + (f" and {more} more" if more > 0 else "")


def _describe(shapes: Mapping[str, ShapePair]) -> list[str]:
    return [f"{name} {pair.in_file} -> {pair.in_model}" for name, pair in shapes.items()]


def _classes_of_model(model: nn.Module) -> int | None:
    """Return the first ``num_classes`` in the model; any module of any library may define it."""
    for module in model.modules():
        count = getattr(module, "num_classes", None)
        if isinstance(count, int):
            return count
    return None


def _classes_of_file(report: LoadReport, checkpoint: Checkpoint | None) -> int | None:
    if checkpoint is not None and checkpoint.class_names:
        return len(checkpoint.class_names)
    for name, shapes in report.mismatched.items():
        if re.search(r"box_predictor(\.\d+)?\.cls_score\.", name):
            return shapes.in_file[0] - 1  # the last row is background
        if re.search(r"mask_head\.predictor\.", name):
            return shapes.in_file[0]
    return None
