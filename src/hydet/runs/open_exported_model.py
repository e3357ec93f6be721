"""Open an exported model as a detector that predicts and can be evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import open_dict

from hydet.config import compose, literal_config
from hydet.engine import select_device
from hydet.engine.checkpoint_search import VerifyHashes
from hydet.export import open_exported

from .build import plain
from .open_checkpoint import LoadedDetector

__all__ = ["open_exported_detector"]


def open_exported_detector(
    path: str | Path, *, device: str | torch.device = "auto", verify: VerifyHashes = True
) -> LoadedDetector:
    """Open an exported model, with a config that resizes images as the evaluation of the model did.

    The config is otherwise that of ``hydet.compose()``, and names no data.

    Args:
        path: see ``hydet.export.open_exported``.
        device: see ``hydet.engine.select_device``.
        verify: compare the hashes of the files.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is damaged.
    """
    model = open_exported(path, device=select_device(device), verify=verify not in (False, "off"))
    config = literal_config(plain(compose(config_name="train")))
    with open_dict(config):
        config.data = None
        config.model = None
        config.augment = {"train": {}, "test": _resizing(model.description.resize)}
        config.evaluation.with_losses = False  # the graph computes none
    return LoadedDetector(model, config, model.metadata, None, str(path))


def _resizing(resize: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the transforms of ``metadata.json`` as a section of a config."""
    if resize is None:
        return {}
    if resize["name"] == "shortest_edge":
        options = {"short": resize["short"], "max_size": resize["max_size"]}
        return {"resize": {"_target_": "hydet.data.ResizeShortestEdge", **options}}
    return {"resize": {"_target_": "hydet.data.Resize", "size": list(resize["size"])}}
