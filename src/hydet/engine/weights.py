"""Load weights into models, and report tensors that do not fit."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from hydet.modeling import inflate_input_weights

from .checkpoint_folder import LINKS, Checkpoint, load_checkpoint

__all__ = ["LoadReport", "ShapePair", "init_from", "load_weights", "read_weights"]

MAX_NAMES = 4
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")


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
    """

    path: Path
    loaded: tuple[str, ...] = ()
    inflated: dict[str, ShapePair] = field(default_factory=dict)
    mismatched: dict[str, ShapePair] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()

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
        return "\n".join(lines)


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], Checkpoint | None]:
    """Read the state dict from a file or checkpoint without executing anything in it.

    Args:
        path: a checkpoint (see ``load_checkpoint``), a ``.safetensors`` file, or a ``.pth`` or ``.pt`` file with a
            state dict, either bare or under ``model``, ``state_dict`` or ``model_state_dict``.

    Returns:
        The tensors by name, and the checkpoint if ``path`` is one.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if the file is damaged, has another format, or would execute code when it is loaded.
    """
    path = Path(path)
    if path.suffix in SUFFIXES:
        if path.is_file():
            return _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch_file(path), None
        if not path.exists():
            raise FileNotFoundError(f"weights {path}: no such file")
    if path.is_file() and path.name not in LINKS:
        raise ValueError(
            f"{path}: expected a checkpoint folder, .safetensors or .pth; hydet.interop reads other formats"
        )
    checkpoint = load_checkpoint(path)
    return checkpoint.weights(), checkpoint


def load_weights(model: nn.Module, path: str | Path, *, strict: bool = True) -> LoadReport:
    """Load weights that belong to this model.

    Args:
        model: model to change in place; unchanged if this function raises.
        path: see ``read_weights``.
        strict: True requires equal names. Equal shapes are always required.

    Raises:
        ValueError: if shapes or, under ``strict``, names differ. The message names them and, if that is the cause, the
            numbers of classes.
    """
    weights, checkpoint = read_weights(path)
    report = _compare(model, weights, Path(path))
    if report.mismatched:
        raise ValueError(_explain_shapes(model, report, checkpoint))
    if not (report.missing or report.unexpected):
        return _load(model, weights, report)
    # Load before judging the names: modules may know older names of their tensors.
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = _load(model, weights, report)
    if strict and (report.missing or report.unexpected):
        model.load_state_dict(before)
        raise ValueError(_explain_names(report))
    return report


def init_from(model: nn.Module, path: str | Path, *, allow_mismatch: bool = False) -> LoadReport:
    """Initialize a model from other weights: load the tensors that both have, and leave the others.

    If the first convolution of the file is for RGB images and the model's for another number of channels, it is
    inflated.

    Args:
        model: model to change in place; unchanged if this function raises.
        path: see ``read_weights``.
        allow_mismatch: True skips tensors of another shape, such as those of heads for another number of classes.

    Returns:
        A report of the loaded and the missing weights; ``str(report)`` is a summary to print.

    Raises:
        ValueError: if shapes differ without ``allow_mismatch``, or no tensor fits.
    """
    weights, checkpoint = read_weights(path)
    report = _compare(model, weights, Path(path))
    weights, report = _inflate(weights, report)
    if report.mismatched and not allow_mismatch:
        raise ValueError(
            _explain_shapes(model, report, checkpoint) + "; allow_mismatch=true leaves such tensors out"
        )
    if not report.loaded:
        raise ValueError(
            f"{path}: none of its {len(weights)} tensors fits the model; it has {_shorten(sorted(weights))}, "
            f"the model {_shorten(sorted(model.state_dict()))}"
        )
    return _load(model, weights, report)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except Exception as error:  # a broken header can raise almost any exception
        raise ValueError(f"{path} is damaged: {error}") from error


def _read_torch_file(path: Path) -> dict[str, Tensor]:
    try:
        loaded: object = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds more than tensors; loading it would run code from the file"
        ) from error
    except Exception as error:  # a broken file can raise almost any exception
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{path} is damaged or not a torch file: {reason}") from error
    for key in ("model", "state_dict", "model_state_dict"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
            break
    if not isinstance(loaded, Mapping) or not any(isinstance(v, Tensor) for v in loaded.values()):
        raise ValueError(f"{path} holds no state dict")
    tensors = {str(k): v for k, v in loaded.items() if isinstance(v, Tensor)}
    if all(name.startswith("module.") for name in tensors):  # saved from a DistributedDataParallel wrapper
        tensors = {name.removeprefix("module."): v for name, v in tensors.items()}
    return tensors


def _compare(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> LoadReport:
    state = model.state_dict()
    common = [name for name in weights if name in state]
    mismatched = {
        name: ShapePair(tuple(weights[name].shape), tuple(state[name].shape))
        for name in common
        if weights[name].shape != state[name].shape
    }
    return LoadReport(
        path=path,
        loaded=tuple(name for name in common if name not in mismatched),
        mismatched=mismatched,
        missing=tuple(name for name in state if name not in weights and not _is_optional(name)),
        unexpected=tuple(name for name in weights if name not in state and not _is_optional(name)),
    )


def _inflate(weights: dict[str, Tensor], report: LoadReport) -> tuple[dict[str, Tensor], LoadReport]:
    """Convert convolutions of RGB images to the model's number of channels."""
    inflated = {
        name: shapes
        for name, shapes in report.mismatched.items()
        if len(shapes.in_file) == len(shapes.in_model) == 4
        and shapes.in_file[1] == 3
        and (shapes.in_file[0], *shapes.in_file[2:]) == (shapes.in_model[0], *shapes.in_model[2:])
    }
    for name, shapes in inflated.items():
        weights = inflate_input_weights(weights, shapes.in_model[1], key=name)
    mismatched = {name: shapes for name, shapes in report.mismatched.items() if name not in inflated}
    loaded = (*report.loaded, *inflated)
    return weights, replace(report, loaded=loaded, inflated=inflated, mismatched=mismatched)


def _is_optional(name: str) -> bool:
    """Return True for a counter that older state dicts lack and that only a momentum of None uses."""
    return name.endswith("num_batches_tracked")


def _load(model: nn.Module, weights: Mapping[str, Tensor], report: LoadReport) -> LoadReport:
    # Unexpected names are passed on as well: modules may know older names, or fill in defaults.
    selected = {name: weights[name] for name in (*report.loaded, *report.unexpected)}
    missing, unexpected = model.load_state_dict(selected, strict=False)
    return replace(
        report,
        missing=tuple(n for n in missing if n not in report.mismatched and not _is_optional(n)),
        unexpected=tuple(n for n in unexpected if not _is_optional(n)),
    )


def _explain_names(report: LoadReport) -> str:
    parts = []
    if report.missing:
        parts.append(f"it lacks {len(report.missing)} of the model's tensors: {_shorten(report.missing)}")
    if report.unexpected:
        parts.append(
            f"the model lacks {len(report.unexpected)} of its tensors: {_shorten(report.unexpected)}"
        )
    return f"{report.path} does not fit the model: {'; '.join(parts)}"


def _explain_shapes(model: nn.Module, report: LoadReport, checkpoint: Checkpoint | None) -> str:
    shapes = _shorten(_describe(report.mismatched))
    file_classes, model_classes = _classes_of_file(report, checkpoint), _classes_of_model(model)
    if file_classes is not None and model_classes is not None and file_classes != model_classes:
        return f"{report.path}: checkpoint has {file_classes} classes, model {model_classes}: {shapes}"
    return f"{report.path} does not fit the model (file -> model): {shapes}"


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


def _shorten(names: Iterable[str]) -> str:
    names = list(names)
    more = len(names) - MAX_NAMES
    return ", ".join(names[:MAX_NAMES]) + (f" and {more} more" if more > 0 else "")
