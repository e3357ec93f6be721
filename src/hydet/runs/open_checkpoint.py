"""Open a checkpoint as a detector that is ready to use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from hydet.config import ConfigError, literal_config
from hydet.data import DataError, Metadata
from hydet.engine import Checkpoint, LoadReport, load_checkpoint, load_weights, select_device
from hydet.engine.checkpoint_search import VerifyHashes
from hydet.modeling import InferenceMode, optimize

from .build import build_model, some_names
from .stored_config import read_stored_config
from .trusted_targets import trusted

__all__ = ["LoadedDetector", "faults_of", "open_checkpoint"]

CONFIG = "config.yaml"


@dataclass(frozen=True)
class LoadedDetector:
    """A model with its weights, and the information that its checkpoint holds about it.

    Attributes:
        model: in evaluation mode, on its device.
        config: the stored config, migrated and with the user's changes. Its strings are literal: ``${...}`` is text.
        metadata: class names and ids of the training data.
        checkpoint: the checkpoint on disk; None for a weight file, see ``hydet.runs.open_weights``.
        origin: where the model comes from, for messages, such as ``runs/a/checkpoints/step_00000350 (step 350)``.
        report: report of the loaded weights; None for a checkpoint, which fits as a whole.
    """

    model: nn.Module
    config: DictConfig
    metadata: Metadata
    checkpoint: Checkpoint | None
    origin: str
    report: LoadReport | None = None


def open_checkpoint(
    path: str | Path,
    *,
    device: str | torch.device = "auto",
    allowed: Sequence[str] = (),
    changes: Mapping[str, Any] | None = None,
    verify: VerifyHashes = True,
    inference: InferenceMode = "exact",
    compile: bool = False,
) -> LoadedDetector:
    """Build the model that a checkpoint's config describes, and load its weights.

    The checkpoint may come from a stranger; see ``hydet.runs.trusted_targets`` for what its config can do.

    Args:
        path: a checkpoint or a run's output folder; the latter stands for its last checkpoint.
        device: see ``hydet.engine.select_device``.
        allowed: prefixes of importable names that the config may build as well.
        changes: merged into the checkpoint's config first, such as
            ``{"model": {"roi_heads": {"box_predictor": {"test_score_thresh": 0.3}}}}``.
        verify: see ``hydet.engine.load_checkpoint``.
        inference: see ``hydet.modeling.optimize``.
        compile: see ``hydet.modeling.optimize``.

    Returns:
        The model in evaluation mode on ``device``.

    Raises:
        FileNotFoundError: if there is no checkpoint.
        ValueError: if it is damaged, its config builds something that is not trusted, or its config does not fit its
            weights.
    """
    checkpoint = load_checkpoint(path, verify=verify)
    plain = read_stored_config(checkpoint.path / CONFIG, allow=allowed, changes=changes)
    metadata = _metadata_of(checkpoint)
    count = plain.get("num_classes", metadata.num_classes)
    if count != metadata.num_classes:
        raise ConfigError(
            f"checkpoint {checkpoint.path}: its config has {count} classes, its metadata "
            f"{some_names(metadata.thing_classes)}"
        )
    config = literal_config(plain)
    with faults_of(checkpoint):
        model = build_model(config, allowed=trusted("model", allowed))
    load_weights(model, checkpoint.path, verify=verify)
    model.to(select_device(device))
    origin = f"{checkpoint.path} (step {checkpoint.step})"
    return LoadedDetector(optimize(model, inference, compile=compile), config, metadata, checkpoint, origin)


@contextmanager
def faults_of(checkpoint: Checkpoint | None) -> Iterator[None]:
    """Name the checkpoint in errors of the parts that its config built.

    Args:
        checkpoint: None leaves errors as they are.

    Raises:
        ConfigError: in place of any error but those of files and libraries, which name their own cause.
    """
    if checkpoint is None:
        yield
        return
    try:
        yield
    except (OSError, ImportError, DataError, FloatingPointError):
        raise
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{checkpoint.path / CONFIG}: {error}") from error
    except Exception as error:
        raise ConfigError(
            f"{checkpoint.path / CONFIG}: its model, data or transforms failed: {type(error).__name__}: {error} "
            "(HYDRA_FULL_ERROR=1 shows where)"
        ) from error


def _metadata_of(checkpoint: Checkpoint) -> Metadata:
    if checkpoint.dataset is None:
        raise ConfigError(f"checkpoint {checkpoint.path} has no class names")
    try:
        return Metadata.from_dict(checkpoint.dataset)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ConfigError(f"checkpoint {checkpoint.path}: its class names are damaged: {error}") from error
