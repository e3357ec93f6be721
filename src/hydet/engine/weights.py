"""Load weights into models, and report tensors that do not fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from hydet.interop import ForeignWeights, read_foreign
from hydet.interop.locations import locate
from hydet.interop.suffix_matching import match_by_suffix
from hydet.interop.weight_file import WEIGHT_SUFFIXES
from hydet.modeling import inflate_input_weights

from .checkpoint_folder import Checkpoint
from .checkpoint_search import LINKS, VerifyHashes, load_checkpoint
from .class_layers import fit_class_layers
from .load_report import LoadReport, ShapePair, explain_names, explain_shapes, shorten_list
from .stored_constants import compare_constants

__all__ = ["LoadReport", "ShapePair", "init_from", "load_weights", "read_weights"]


def read_weights(
    path: str | Path, *, verify: VerifyHashes = True
) -> tuple[dict[str, Tensor], Checkpoint | None]:
    """Read the state dict from a file or checkpoint without executing anything in it.

    Args:
        path: a checkpoint (see ``load_checkpoint``), a weight file of hydet or another library (see
            ``hydet.interop.read_foreign``), or another source of such a file (see ``hydet.interop.find_weights``).
        verify: compare the hashes of a checkpoint; see ``load_checkpoint``.

    Returns:
        The tensors by their names in hydet, and the checkpoint if ``path`` is one.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if the file is damaged, has another format, or would execute code when it is loaded.
    """
    weights, checkpoint = _read(path, verify)
    return dict(weights.tensors), checkpoint


def load_weights(
    model: nn.Module, path: str | Path | ForeignWeights, *, strict: bool = True, verify: VerifyHashes = True
) -> LoadReport:
    """Load weights that belong to this model.

    Args:
        model: model to change in place; unchanged if this function raises.
        path: see ``read_weights``; or the content of a file that was read already.
        strict: True requires equal names, and equal values of pixel statistics and anchors where an old file has them.
            Equal shapes are always required.
        verify: compare the hashes of a checkpoint; see ``load_checkpoint``.

    Raises:
        ValueError: if shapes or, under ``strict``, names differ. The message names them and, if that is the cause, the
            numbers of classes.
    """
    source, checkpoint = _read_for(model, path, verify)
    weights, differing = _drop_constants(model, source, "strict=False" if strict else None)
    report = replace(_compare(model, weights, source), differing=differing)
    if report.mismatched:
        raise ValueError(explain_shapes(model, report, checkpoint))
    if not (report.missing or report.unexpected):
        return _load(model, weights, report)
    # Load before judging the names: modules may know older names of their tensors.
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = _load(model, weights, report)
    if strict and (report.missing or report.unexpected):
        model.load_state_dict(before)
        raise ValueError(explain_names(report))
    return report


def init_from(
    model: nn.Module,
    path: str | Path,
    *,
    allow_mismatch: bool = False,
    class_names: Sequence[str] = (),
    file_class_names: Sequence[str] = (),
    verify: VerifyHashes = True,
) -> LoadReport:
    """Initialize a model from other weights: load the tensors that both have, and leave the others.

    If the first convolution of the file is for RGB images and the model's for another number of channels, it is
    inflated. Predictors for another number of classes keep their initialization, except that the rows of classes with
    equal names, and then of background, are copied.

    Args:
        model: model to change in place; unchanged if this function raises.
        path: see ``read_weights``. A file that matches by the ends of names may lack any tensor and have other shapes.
        allow_mismatch: True skips other tensors of another shape, and lets pixel statistics and anchors in an old file
            differ from those of the model.
        class_names: names of the model's classes, if known.
        file_class_names: names of the classes of the weights, for files that do not hold them.
        verify: compare the hashes of a checkpoint; see ``load_checkpoint``.

    Returns:
        A report of the loaded and the missing weights; ``str(report)`` is a summary to print.

    Raises:
        ValueError: if shapes differ without ``allow_mismatch``, or no tensor fits.
    """
    source, checkpoint = _read_for(model, path, verify)
    weights, differing = _drop_constants(model, source, None if allow_mismatch else "allow_mismatch=true")
    weights, changes = fit_class_layers(
        model,
        weights,
        class_names=class_names,
        file_class_names=_class_names(source, checkpoint) or file_class_names,
    )
    report = replace(_compare(model, weights, source), differing=differing, class_changes=changes)
    weights, report = _reshape(*_inflate(weights, report))
    if report.mismatched and not (allow_mismatch or source.by_suffix):
        raise ValueError(
            explain_shapes(model, report, checkpoint) + "; allow_mismatch=true leaves such tensors out"
        )
    if not report.loaded:
        raise ValueError(
            f"{path}: none of its {len(weights)} tensors fits the model; it has {shorten_list(sorted(weights))}, "
            f"the model {shorten_list(sorted(model.state_dict()))}"
        )
    return _load(model, weights, report)


def _read(
    source: str | Path | ForeignWeights, verify: VerifyHashes
) -> tuple[ForeignWeights, Checkpoint | None]:
    if isinstance(source, ForeignWeights):
        return source, None
    path, by_suffix = locate(source)
    if path.suffix in WEIGHT_SUFFIXES and not path.exists():
        raise FileNotFoundError(f"weights {path}: no such file")
    if path.is_file() and path.name not in LINKS:
        return read_foreign(path, by_suffix=by_suffix), None
    checkpoint = load_checkpoint(path, verify=verify)
    return ForeignWeights(path, "state dict", checkpoint.weights()), checkpoint


def _read_for(
    model: nn.Module, path: str | Path | ForeignWeights, verify: VerifyHashes
) -> tuple[ForeignWeights, Checkpoint | None]:
    """Read weights in the names of a model."""
    source, checkpoint = _read(path, verify)
    if source.by_suffix:
        source = replace(match_by_suffix(source, model.state_dict()), by_suffix=True)
    return source, checkpoint


def _class_names(source: ForeignWeights, checkpoint: Checkpoint | None) -> tuple[str, ...]:
    if checkpoint is not None:
        return checkpoint.class_names or ()
    return source.model.class_names if source.model is not None else ()


def _drop_constants(
    model: nn.Module, source: ForeignWeights, remedy: str | None
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Leave out pixel statistics and anchors.

    Args:
        model: the model, which keeps its own.
        source: content of the file.
        remedy: the setting that permits differences, for the message; None if they are permitted.

    Returns:
        The other weights, and the names of constants that the model has other values for.

    Raises:
        ValueError: if values differ and that is not permitted.
    """
    constants = compare_constants(model, source.tensors)
    if constants.differences and remedy is not None:
        raise ValueError(
            f"{source.path} does not fit the model: {constants.explain()}; {remedy} ignores the values of the file"
        )
    remaining = {name: value for name, value in source.tensors.items() if name not in constants.names}
    return remaining, tuple(constants.differences)


def _compare(model: nn.Module, weights: Mapping[str, Tensor], source: ForeignWeights) -> LoadReport:
    state = model.state_dict()
    common = [name for name in weights if name in state]
    mismatched = {
        name: ShapePair(tuple(weights[name].shape), tuple(state[name].shape))
        for name in common
        if weights[name].shape != state[name].shape
    }
    return LoadReport(
        path=source.path,
        format=source.format,
        renamed={name: original for name, original in source.renamed.items() if name in state},
        skipped=source.skipped,
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


def _reshape(weights: dict[str, Tensor], report: LoadReport) -> tuple[dict[str, Tensor], LoadReport]:
    """Add or remove axes of length 1: a linear layer may be a convolution of 1 x 1 elsewhere, a number a vector."""
    reshaped = {
        name: shapes
        for name, shapes in report.mismatched.items()
        if [n for n in shapes.in_file if n != 1] == [n for n in shapes.in_model if n != 1]
    }
    weights = {n: w.reshape(reshaped[n].in_model) if n in reshaped else w for n, w in weights.items()}
    mismatched = {name: shapes for name, shapes in report.mismatched.items() if name not in reshaped}
    loaded = (*report.loaded, *reshaped)
    return weights, replace(report, loaded=loaded, reshaped=reshaped, mismatched=mismatched)


def _is_optional(name: str) -> bool:
    """Return True for a counter that older state dicts lack and that only a momentum of None uses."""
    return name.endswith("num_batches_tracked")


def _load(model: nn.Module, weights: Mapping[str, Tensor], report: LoadReport) -> LoadReport:
    # Unexpected names are passed on as well: modules may know older names, or fill in defaults.
    selected = {name: weights[name] for name in (*report.loaded, *report.unexpected)}
    missing, unexpected = model.load_state_dict(selected, strict=False)
    left_out = {*report.mismatched, *report.changed}
    return replace(
        report,
        loaded=tuple(n for n in report.loaded if n not in left_out),
        missing=tuple(n for n in missing if n not in left_out and not _is_optional(n)),
        unexpected=tuple(n for n in unexpected if not _is_optional(n)),
    )
