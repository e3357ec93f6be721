"""Weights into models, with errors that say what does not fit."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from hydet.modeling import inflate_input_weights

from .checkpoint import POINTERS, Checkpoint, load_checkpoint

__all__ = ["LoadReport", "init_from", "load_weights", "read_weights"]

NAMES_SHOWN = 4


@dataclass(frozen=True)
class LoadReport:
    """What was loaded and what was not.

    Attributes:
        path: where the weights came from.
        loaded: names that the model now has from there.
        inflated: of these, the convolutions of RGB images that were fitted to another number of channels (see
            ``hydet.modeling.inflate_input_weights``): name -> (shape in the file, shape in the model).
        mismatched: name -> (shape in the file, shape in the model); left as they were.
        missing: names of the model that the file lacks; left as they were.
        unexpected: names of the file that the model lacks.
    """

    path: Path
    loaded: tuple[str, ...] = ()
    inflated: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    mismatched: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"loaded {len(self.loaded)} tensors from {self.path}"]
        if self.inflated:
            lines.append(f"inflated to other images than RGB: {', '.join(_shape_notes(self.inflated))}")
        if self.mismatched:
            lines.append(f"not loaded, other shape: {', '.join(_shape_notes(self.mismatched))}")
        if self.missing:
            lines.append(f"not in the file: {', '.join(self.missing)}")
        if self.unexpected:
            lines.append(f"only in the file: {', '.join(self.unexpected)}")
        return "\n".join(lines)


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], Checkpoint | None]:
    """The state dict in a file or checkpoint, without executing anything in it.

    Args:
        path: a checkpoint (see ``load_checkpoint``), a ``.safetensors`` file, or a ``.pth``/``.pt`` file holding a
            state dict, bare or under ``model``, ``state_dict`` or ``model_state_dict``.

    Returns:
        The tensors by name, and the checkpoint if it was one.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged, of another kind, or would need to run code to load.
    """
    path = Path(path)
    if path.suffix == ".safetensors" and path.is_file():
        try:
            return load_file(path), None
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged: {error}") from error
    if path.suffix in (".pth", ".pt", ".bin", ".ckpt") and path.is_file():
        return _read_torch_file(path), None
    if path.suffix in (".safetensors", ".pth", ".pt", ".bin", ".ckpt") and not path.exists():
        raise FileNotFoundError(f"weights {path}: no such file")
    if path.is_file() and path.name not in POINTERS:
        raise ValueError(
            f"{path}: expected a checkpoint folder, .safetensors or .pth; hydet.interop reads other formats"
        )
    checkpoint = load_checkpoint(path)
    return checkpoint.weights(), checkpoint


def load_weights(model: nn.Module, path: str | Path, *, strict: bool = True) -> LoadReport:
    """Load weights that belong to this model.

    Args:
        model: changed in place; if this raises, it is not changed.
        path: see ``read_weights``.
        strict: names must agree. Shapes must agree in any case.

    Raises:
        ValueError: if shapes differ, or names under ``strict``; a line that names them and, where that is the
            cause, the numbers of classes.
    """
    weights, checkpoint = read_weights(path)
    report = _compare(model, weights, Path(path))
    if report.mismatched:
        raise ValueError(_explain_shapes(model, report, checkpoint))
    if not (report.missing or report.unexpected):
        return _load(model, weights, report)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = _load(model, weights, report)
    if strict and (report.missing or report.unexpected):
        model.load_state_dict(before)
        raise ValueError(_explain_names(report))
    return report


def init_from(model: nn.Module, path: str | Path, *, allow_mismatch: bool = False) -> LoadReport:
    """Start from somebody else's weights: load what the model has, leave the rest as it was.

    Where the file's first convolution is for RGB images and the model's for another number of channels, it is inflated.

    Args:
        model: changed in place; if this raises, it is not changed.
        path: see ``read_weights``.
        allow_mismatch: skip tensors of another shape, as of heads for another number of classes.

    Returns:
        Exactly what was loaded and what was not; its ``str`` is meant to be printed.

    Raises:
        ValueError: if shapes differ and ``allow_mismatch`` is off, or nothing at all fits.
    """
    weights, checkpoint = read_weights(path)
    report = _compare(model, weights, Path(path))
    weights, report = _inflated(weights, report)
    if report.mismatched and not allow_mismatch:
        raise ValueError(
            _explain_shapes(model, report, checkpoint) + "; allow_mismatch=true leaves such tensors out"
        )
    if not report.loaded:
        raise ValueError(
            f"{path}: none of its {len(weights)} tensors fits the model; it has {_some(sorted(weights))}, "
            f"the model {_some(sorted(model.state_dict()))}"
        )
    return _load(model, weights, report)


def _read_torch_file(path: Path) -> dict[str, Tensor]:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds more than tensors; loading it would run code from the file"
        ) from error
    except (RuntimeError, EOFError) as error:
        raise ValueError(f"{path} is damaged or no torch file: {str(error).splitlines()[0]}") from error
    for key in ("model", "state_dict", "model_state_dict"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
            break
    if not isinstance(loaded, Mapping) or not any(isinstance(v, Tensor) for v in loaded.values()):
        raise ValueError(f"{path} holds no state dict")
    tensors = {str(k): v for k, v in loaded.items() if isinstance(v, Tensor)}
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): v for name, v in tensors.items()}
    return tensors


def _compare(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> LoadReport:
    own = model.state_dict()
    common = [name for name in weights if name in own]
    different = {
        name: (tuple(weights[name].shape), tuple(own[name].shape))
        for name in common
        if weights[name].shape != own[name].shape
    }
    return LoadReport(
        path=path,
        loaded=tuple(name for name in common if name not in different),
        mismatched=different,
        missing=tuple(name for name in own if name not in weights and not _is_optional(name)),
        unexpected=tuple(name for name in weights if name not in own and not _is_optional(name)),
    )


def _inflated(weights: dict[str, Tensor], report: LoadReport) -> tuple[dict[str, Tensor], LoadReport]:
    """Fit convolutions of RGB images to the model's number of channels."""
    fitted: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
        name: (theirs, ours)
        for name, (theirs, ours) in report.mismatched.items()
        if len(theirs) == len(ours) == 4
        and theirs[1] == 3
        and (theirs[0], *theirs[2:]) == (ours[0], *ours[2:])
    }
    for name, (_, ours) in fitted.items():
        weights = inflate_input_weights(weights, ours[1], key=name)
    rest = {name: shapes for name, shapes in report.mismatched.items() if name not in fitted}
    return weights, replace(report, loaded=(*report.loaded, *fitted), inflated=fitted, mismatched=rest)


def _is_optional(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def _load(model: nn.Module, weights: Mapping[str, Tensor], report: LoadReport) -> LoadReport:
    kept = {name: weights[name] for name in report.loaded}
    kept |= {name: weights[name] for name in report.unexpected}
    missing, unexpected = model.load_state_dict(
        kept, strict=False
    )  # modules may know older names, or defaults
    return replace(
        report,
        missing=tuple(n for n in missing if n not in report.mismatched and not _is_optional(n)),
        unexpected=tuple(n for n in unexpected if not _is_optional(n)),
    )


def _explain_names(report: LoadReport) -> str:
    parts = []
    if report.missing:
        parts.append(f"it lacks {len(report.missing)} of the model's tensors: {_some(report.missing)}")
    if report.unexpected:
        parts.append(f"the model lacks {len(report.unexpected)} of its tensors: {_some(report.unexpected)}")
    return f"{report.path} does not fit the model: {'; '.join(parts)}"


def _explain_shapes(model: nn.Module, report: LoadReport, checkpoint: Checkpoint | None) -> str:
    shapes = f"{_some(_shape_notes(report.mismatched))}"
    theirs, ours = _checkpoint_classes(report, checkpoint), _model_classes(model)
    if theirs is not None and ours is not None and theirs != ours:
        return f"{report.path}: checkpoint has {theirs} classes, model {ours}: {shapes}"
    return f"{report.path} does not fit the model (file -> model): {shapes}"


def _shape_notes(mismatched: Mapping[str, tuple[Any, Any]]) -> list[str]:
    return [f"{name} {theirs} -> {ours}" for name, (theirs, ours) in mismatched.items()]


def _model_classes(model: nn.Module) -> int | None:
    for module in model.modules():
        count = getattr(module, "num_classes", None)
        if isinstance(count, int):
            return count
    return None


def _checkpoint_classes(report: LoadReport, checkpoint: Checkpoint | None) -> int | None:
    if checkpoint is not None and checkpoint.class_names:
        return len(checkpoint.class_names)
    for name, (theirs, _) in report.mismatched.items():
        if re.search(r"box_predictor(\.\d+)?\.cls_score\.", name):
            return theirs[0] - 1  # the last row is background
        if re.search(r"mask_head\.predictor\.", name):
            return theirs[0]
    return None


def _some(names: Any) -> str:
    names = list(names)
    rest = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
