"""Open weights from elsewhere as a detector: a weight file, an address, or the name of a published recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, open_dict

from hydet.config import ConfigError, compose, literal_config
from hydet.data import DataError
from hydet.engine import load_weights, select_device
from hydet.engine.checkpoint_search import LINKS, VerifyHashes
from hydet.export import is_exported
from hydet.interop import ForeignModel, ForeignWeights, find_weights, read_foreign
from hydet.interop.locations import is_remote
from hydet.interop.recipes import find_recipe
from hydet.modeling import InferenceMode, optimize

from .build import build_model, plain
from .known_metadata import known_metadata
from .open_checkpoint import LoadedDetector, open_checkpoint
from .open_exported_model import open_exported_detector
from .stored_config import checked_config
from .trusted_targets import trusted

__all__ = ["known_model", "open_detector", "open_weights"]

# An override that selects a whole model.
_SELECTS_MODEL = ("model=", "experiment=", "+experiment=")


def open_detector(
    source: str | Path,
    *,
    device: str | torch.device = "auto",
    allowed: Sequence[str] = (),
    changes: Mapping[str, Any] | None = None,
    verify: VerifyHashes = True,
    inference: InferenceMode = "exact",
    compile: bool = False,
) -> LoadedDetector:
    """Open a checkpoint, weights from elsewhere whose model is known, or an exported model.

    Args:
        source: see ``hydet.interop.find_weights``; a folder is a checkpoint, the output folder of a run, or that of an
            export.
        device: see ``open_checkpoint``, as the other arguments.
        allowed: prefixes of importable names that the config may build as well.
        changes: merged into the config first.
        verify: compare the hashes of a checkpoint.
        inference: see ``hydet.modeling.optimize``.
        compile: see ``hydet.modeling.optimize``.

    Raises:
        FileNotFoundError: if there is nothing at ``source``.
        ConfigError: if an exported model shall be changed or compiled.
        ValueError: see ``open_checkpoint`` and ``open_weights``.
    """
    path = Path(source)
    if not is_remote(source) and is_exported(path):
        if changes or compile:
            raise ConfigError(f"{source}: an exported model cannot be changed or compiled; export it again")
        return open_exported_detector(path, device=device, verify=verify)
    if is_remote(source) or _is_weight_file(path):
        return open_weights(
            source, device=device, allowed=allowed, changes=changes, inference=inference, compile=compile
        )
    return open_checkpoint(
        path,
        device=device,
        allowed=allowed,
        changes=changes,
        verify=verify,
        inference=inference,
        compile=compile,
    )


def open_weights(
    source: str | Path,
    *,
    overrides: Sequence[str] = (),
    device: str | torch.device = "auto",
    allowed: Sequence[str] = (),
    changes: Mapping[str, Any] | None = None,
    inference: InferenceMode = "exact",
    compile: bool = False,
) -> LoadedDetector:
    """Build the model that weights belong to, and load them.

    The model follows from the file, if a converter recognizes it, or from the published recipe that ``source`` names.
    Its classes are those of the dataset that it was trained on.

    Args:
        source: see ``hydet.interop.find_weights``.
        overrides: further overrides of ``hydet.compose``. They can select another model, and must do so if the model of
            the file is not known.
        device: see ``hydet.engine.select_device``.
        allowed: prefixes of importable names that the config may build as well.
        changes: sections to merge into the config, as in ``open_checkpoint``.
        inference: see ``hydet.modeling.optimize``.
        compile: see ``hydet.modeling.optimize``.

    Returns:
        The model in evaluation mode on ``device``; its ``checkpoint`` is None.

    Raises:
        FileNotFoundError: if there is nothing at ``source``.
        ConfigError: if an override or a change does not fit.
        ValueError: if the download fails, the model is not known, or its weights differ from those in the file.
    """
    path = find_weights(source)
    weights = read_foreign(path)
    model = known_model(source, weights)
    is_detector = model is not None and not model.is_backbone
    if not is_detector and not any(override.startswith(_SELECTS_MODEL) for override in overrides):
        compose(*overrides)  # an unknown key, such as `modl`, has an error of its own
        if model is not None:
            raise DataError(
                f"{path} holds a backbone, not a detector; to train from it: python -m src.train init_from={source} "
                + " ".join(model.overrides)
            )
        raise DataError(
            f"{path} does not say which model its weights belong to; name it: python -m src.weights convert {source} OUT "
            "model=MODEL backbone=BACKBONE data.class_names=[...], or experiment=RECIPE"
        )
    config = _config_of(model, overrides)
    checked = checked_config(plain(config), name=str(source), allow=allowed, changes=changes)
    config = literal_config(checked)
    detector = build_model(config, allowed=trusted("model", allowed))
    names_given = any(override.lstrip("+").startswith("data.class_names=") for override in overrides)
    metadata = known_metadata(config, detector, () if names_given or model is None else model.class_names)
    with open_dict(config):
        config.data = literal_config({**checked["data"], "class_names": list(metadata.thing_classes)})
    report = load_weights(detector, weights)
    detector.to(select_device(device))
    origin = str(source) if str(source) == str(path) else f"{source} ({path})"
    return LoadedDetector(
        optimize(detector, inference, compile=compile), config, metadata, None, origin, report
    )


def known_model(source: str | Path, weights: ForeignWeights) -> ForeignModel | None:
    """Return the model that weights belong to: that of the published recipe or of the file, or None.

    Args:
        source: see ``open_weights``.
        weights: content of its file.
    """
    recipe = find_recipe(source)
    if recipe is not None:
        return ForeignModel(recipe.overrides)
    return weights.model


def _is_weight_file(path: Path) -> bool:
    return path.is_file() and path.name not in LINKS


def _config_of(model: ForeignModel | None, overrides: Sequence[str]) -> DictConfig:
    base = () if model is None else model.overrides
    if any(override.startswith(_SELECTS_MODEL) for override in overrides):
        base = ()  # the user's model replaces the one of the file
    return compose(*base, *overrides, config_name="train")
