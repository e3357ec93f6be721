"""Report which tensors of a file fit a model, and explain those that do not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from torch import nn

from .checkpoint_folder import Checkpoint
from .class_layers import ClassChange
from .module_names import summarize_modules

__all__ = ["LoadReport", "ShapePair", "explain_names", "explain_shapes", "shorten_list"]

MAX_NAMES = 4


class ShapePair(NamedTuple):
    """Shapes of one tensor."""

    in_file: tuple[int, ...]
    in_model: tuple[int, ...]


@dataclass(frozen=True)
class LoadReport:
    """Names of the tensors that were loaded, and of those that were not.

    ``str(report)`` is a summary by module; the attributes list every tensor.

    Attributes:
        path: source of the weights.
        format: library whose names the source has, see ``hydet.interop.ForeignWeights``.
        loaded: names of the tensors that the model now has from the source.
        renamed: those of ``loaded`` that have another name in the source, with that name.
        reshaped: those of ``loaded`` that have more or fewer axes of length 1 in the source.
        inflated: those of ``loaded`` that are convolutions of RGB images and were converted to another number of
            channels (see ``hydet.modeling.inflate_input_weights``).
        class_changes: predictors for other classes, which keep their initialization except rows of equal names.
        mismatched: tensors with another shape, which keep their old values.
        missing: names of tensors that only the model has, which keep their old values.
        unexpected: names of tensors that only the source has.
        skipped: names of other values in the source -> why they are not used.
        differing: pixel statistics and anchors that have other values in the source; the model keeps its own.
    """

    path: Path
    format: str = "state dict"
    loaded: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    reshaped: dict[str, ShapePair] = field(default_factory=dict)
    inflated: dict[str, ShapePair] = field(default_factory=dict)
    class_changes: tuple[ClassChange, ...] = ()
    mismatched: dict[str, ShapePair] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    differing: tuple[str, ...] = ()

    @property
    def changed(self) -> tuple[str, ...]:
        """Names of the tensors of predictors for other classes."""
        return tuple(name for change in self.class_changes for name in change.tensors)

    def __str__(self) -> str:
        source = str(self.path) if self.format == "state dict" else f"{self.path} ({self.format})"
        left_out = (*self.changed, *self.mismatched, *self.missing)
        lines = [f"loaded {len(self.loaded)} tensors from {source}"]
        if left_out:
            lines[0] += f": {summarize_modules(self.loaded, left_out)}"
        if self.renamed:
            lines.append(f"renamed: {summarize_modules(self.renamed, set(self.loaded) - set(self.renamed))}")
        if self.reshaped:
            lines.append(f"reshaped: {_list_shapes(self.reshaped)}")
        if self.inflated:
            lines.append(f"converted from RGB to other channels: {_list_shapes(self.inflated)}")
        lines.extend(str(change) for change in self.class_changes)
        if self.mismatched:
            lines.append(f"not loaded because of their shape: {_list_shapes(self.mismatched)}")
        if self.missing:
            lines.append(
                f"not in the file: {summarize_modules(self.missing, set(self._all) - set(self.missing))}"
            )
        if self.unexpected:
            lines.append(f"only in the file: {summarize_modules(self.unexpected, self._all)}")
        for reason in sorted(set(self.skipped.values())):
            names = [name for name, why in self.skipped.items() if why == reason]
            lines.append(f"skipped ({reason}): {shorten_list(names)}")
        if self.differing:
            lines.append(f"other values in the file, which were not used: {', '.join(self.differing)}")
        return "\n".join(lines)

    @property
    def _all(self) -> tuple[str, ...]:
        """Names of all tensors of the model."""
        return (*self.loaded, *self.changed, *self.mismatched, *self.missing)


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


def _list_shapes(shapes: Mapping[str, ShapePair]) -> str:
    return shorten_list(_describe(shapes))


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
