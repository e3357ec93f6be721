"""A checkpoint as a model that is ready to use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from omegaconf import DictConfig, OmegaConf
from torch import nn

from hydet.config import ConfigError, check_targets
from hydet.data import Metadata
from hydet.engine import Checkpoint, load_checkpoint, load_weights, select_device

from .build import build_model, some_names

__all__ = ["TRUSTED", "LoadedDetector", "open_checkpoint"]

# What a stored config may build without being asked; a user's own packages are added by `allow=[...]`.
TRUSTED = ("hydet", "torch.nn", "torchvision")
# What is built of a stored config besides its model.
BUILT = ("augment", "data", "evaluators")


@dataclass(frozen=True)
class LoadedDetector:
    """A model with its weights, and what its checkpoint says about it."""

    model: nn.Module
    config: DictConfig
    metadata: Metadata
    checkpoint: Checkpoint


def open_checkpoint(
    path: str | Path,
    *,
    device: str | torch.device = "auto",
    allowed: Sequence[str] = (),
    changes: Mapping[str, Any] | None = None,
) -> LoadedDetector:
    """Build the model that a checkpoint's config describes, and load its weights.

    Args:
        path: a checkpoint or a run's output folder; the latter stands for its last checkpoint.
        device: see ``hydet.engine.select_device``.
        allowed: prefixes of importable names that the config may build, besides hydet's and torch's own.
        changes: merged into the checkpoint's config first, such as
            ``{"model": {"roi_heads": {"box_predictor": {"test_score_thresh": 0.3}}}}``.

    Returns:
        The model in evaluation mode on ``device``.

    Raises:
        FileNotFoundError: if there is no checkpoint.
        ValueError: if it is damaged, or its config does not fit its weights.
    """
    try:
        checkpoint = load_checkpoint(path)
        config = checkpoint.config
    except (KeyError, AttributeError, yaml.YAMLError) as error:
        raise ConfigError(f"checkpoint {path} is damaged: {' '.join(str(error).split())}") from error
    if "model" not in config:
        raise ConfigError(f"checkpoint {checkpoint.path} carries no config of a model")
    if checkpoint.dataset is None:
        raise ConfigError(f"checkpoint {checkpoint.path} carries no class names")
    try:
        metadata = Metadata.from_dict(checkpoint.dataset)
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"checkpoint {checkpoint.path}: its class names are damaged: {error}") from error
    count = config.get("num_classes", metadata.num_classes)
    if count != metadata.num_classes:
        raise ConfigError(
            f"checkpoint {checkpoint.path}: its config has {count} classes, its metadata "
            f"{some_names(metadata.thing_classes)}"
        )
    if changes:
        config = DictConfig(OmegaConf.to_container(config))
        config.merge_with(dict(changes))
    for part in BUILT:
        if config.get(part) is not None:
            check_targets(config[part], [*TRUSTED, *allowed])
    model = build_model(config, allowed=[*TRUSTED, *allowed])
    load_weights(model, checkpoint.path)
    return LoadedDetector(model.to(select_device(device)).eval(), config, metadata, checkpoint)
