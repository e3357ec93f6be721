"""A summary of a weight file: its format, its modules, its classes, and the model that hydet builds for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from hydet.config import compose
from hydet.engine import load_checkpoint
from hydet.interop import find_weights, read_foreign
from hydet.interop.recipes import find_recipe

from .open_weights import known_model

__all__ = ["ModuleSummary", "WeightsSummary", "summarize_modules", "summarize_weights"]

_MAX_SHAPES = 2  # tensors of a module whose shapes are listed


@dataclass(frozen=True)
class ModuleSummary:
    """A module, or a group of modules below a common name.

    Attributes:
        name: its name in hydet.
        num_tensors: number of its tensors.
        num_parameters: number of their elements.
        shapes: shapes of its tensors by their last names; empty if there are many.
    """

    name: str
    num_tensors: int
    num_parameters: int
    shapes: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class WeightsSummary:
    """Content of a weight file or checkpoint.

    Attributes:
        path: the file or folder.
        format: a word for the library, such as ``"torchvision"``.
        tensors: the weights by their names in hydet.
        num_renamed: number of tensors with other names in the file.
        skipped: name in the file -> why it is not used.
        class_names: names of the classes; empty if unknown.
        num_classes: number of the classes, or None if unknown.
        overrides: overrides of ``hydet.compose`` that build the model; empty if it is not known.
        model: class of the model, or None if it is not known.
    """

    path: Path
    format: str
    tensors: Mapping[str, Tensor]
    num_renamed: int
    skipped: Mapping[str, str]
    class_names: tuple[str, ...]
    num_classes: int | None
    overrides: tuple[str, ...]
    model: str | None


def summarize_weights(source: str | Path) -> WeightsSummary:
    """Read weights and describe them; no model is built.

    Args:
        source: see ``hydet.interop.find_weights``; a folder is a checkpoint or the output folder of a run.

    Raises:
        FileNotFoundError: if there is nothing at ``source``.
        ValueError: if it cannot be read.
    """
    path = find_weights(source)
    if path.is_dir():
        return _summarize_checkpoint(path)
    weights = read_foreign(path)
    model = known_model(source, weights)
    overrides = () if model is None else model.overrides
    config = None if model is None or model.is_backbone else compose(*overrides)
    names = () if model is None else model.class_names
    if config is not None and not names and find_recipe(source) is not None:
        names = tuple(config.data.get("class_names") or ())
    return WeightsSummary(
        path=path,
        format=weights.format,
        tensors=weights.tensors,
        num_renamed=len(weights.renamed),
        skipped=weights.skipped,
        class_names=names,
        num_classes=_count_classes(weights.tensors) if config is None else int(config.num_classes),
        overrides=overrides,
        model=None if config is None else _class_of(config.model),
    )


def _summarize_checkpoint(path: Path) -> WeightsSummary:
    checkpoint = load_checkpoint(path)
    names = checkpoint.class_names or ()
    return WeightsSummary(
        path=checkpoint.path,
        format="hydet checkpoint",
        tensors=checkpoint.weights(),
        num_renamed=0,
        skipped={},
        class_names=names,
        num_classes=len(names) or None,
        overrides=(),
        model=_class_of(checkpoint.config.get("model")),
    )


def summarize_modules(tensors: Mapping[str, Tensor], depth: int) -> list[ModuleSummary]:
    """Group tensors by the first parts of their names.

    Args:
        tensors: weights by name.
        depth: number of parts, from 1.
    """
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        module = ".".join(name.split(".")[:-1][:depth])
        groups.setdefault(module, {})[name] = tensor
    return [
        ModuleSummary(
            name=module,
            num_tensors=len(group),
            num_parameters=sum(tensor.numel() for tensor in group.values()),
            shapes={n.removeprefix(f"{module}."): tuple(t.shape) for n, t in group.items()}
            if len(group) <= _MAX_SHAPES
            else {},
        )
        for module, group in groups.items()
    ]


def _count_classes(tensors: Mapping[str, Tensor]) -> int | None:
    """Return the number of classes of the box classifier of an R-CNN, whose last row is background, or None."""
    for name, tensor in tensors.items():
        if name.endswith("cls_score.bias") and "roi_heads." in name:
            return len(tensor) - 1
    return None


def _class_of(section: object) -> str | None:
    target = section.get("_target_") if isinstance(section, Mapping) else None
    return None if target is None else str(target).rpartition(".")[2]
