"""Checkpoints: folders that carry weights, training state, config and class names.

```
<output_dir>/checkpoints/
  step_00001000/    model.safetensors  training_state.pt  config.yaml  metadata.json
  last, best        point to one of them
```
"""

from __future__ import annotations

import json
import math
import pickle
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, ListConfig, OmegaConf
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from .atomic_files import atomic_folder, pointer_target

__all__ = ["Checkpoint", "find_last_checkpoint", "list_checkpoints", "load_checkpoint", "save_checkpoint"]

WEIGHTS, STATE, CONFIG, METADATA = "model.safetensors", "training_state.pt", "config.yaml", "metadata.json"
POINTERS = ("last", "best")
FORMAT = "hydet-checkpoint"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """One complete checkpoint on disk; its parts are read when they are asked for.

    Attributes:
        path: the folder.
        metadata: what ``metadata.json`` holds: ``step``, ``max_steps``, ``metrics``, ``dataset`` (the dict form of
            ``hydet.data.Metadata``, or ``None``), versions.
    """

    path: Path
    metadata: dict[str, Any]

    @property
    def step(self) -> int:
        """How many optimizer steps led here."""
        return int(self.metadata["step"])

    @property
    def metrics(self) -> dict[str, float]:
        """The latest evaluation before it was written."""
        metrics = self.metadata.get("metrics") or {}
        return {name: math.nan if value is None else value for name, value in metrics.items()}

    @property
    def dataset(self) -> dict[str, Any] | None:
        """The dict form of the training set's ``hydet.data.Metadata``."""
        return self.metadata.get("dataset")

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes, if the run had metadata."""
        return tuple(self.dataset["thing_classes"]) if self.dataset else None

    @cached_property
    def config(self) -> DictConfig:
        """The config of the run; empty if it had none."""
        loaded = OmegaConf.load(self.path / CONFIG)
        return loaded if isinstance(loaded, DictConfig) else OmegaConf.create({})

    def weights(self) -> dict[str, Tensor]:
        """The model's state dict, on the CPU; averaged weights if the run kept an average."""
        try:
            return load_file(self.path / WEIGHTS)
        except SafetensorError as error:
            raise ValueError(f"{self.path / WEIGHTS} is damaged: {error}") from error

    def training_state(self) -> dict[str, Any]:
        """All that a run needs to continue, on the CPU. Nothing in it is executed by loading."""
        try:
            return torch.load(self.path / STATE, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise ValueError(f"{self.path / STATE} is damaged: {error}") from error


def save_checkpoint(
    folder: str | Path,
    *,
    weights: Mapping[str, Tensor],
    training_state: Mapping[str, Any],
    config: Any = None,
    metadata: Mapping[str, Any],
) -> Checkpoint:
    """Write a checkpoint that is there as a whole or not at all.

    Args:
        folder: becomes the checkpoint; one of that name is replaced.
        weights: a state dict. Tensors that share memory are stored once each.
        training_state: tensors, numbers, strings, and lists and dicts of them.
        config: an OmegaConf object or plain containers.
        metadata: plain JSON, at least ``step``.

    Raises:
        TypeError: if ``training_state`` holds something that could only be pickled; the message says where.
        OSError: if the disk does not take it; nothing of it then remains.
    """
    folder = Path(folder)
    state = _plain(training_state, "training state")
    with atomic_folder(folder) as new:
        save_file(_separate(weights), new / WEIGHTS, metadata={"format": "pt"})
        torch.save(state, new / STATE)
        (new / CONFIG).write_text(_yaml(config))
        record = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "torch": torch.__version__,
            "saved_at": time.time(),
            **metadata,
            "files": {name: (new / name).stat().st_size for name in (WEIGHTS, STATE, CONFIG)},
        }
        (new / METADATA).write_text(json.dumps(_json(record), indent=1))
    return load_checkpoint(folder)


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Open the checkpoint at ``path``.

    Args:
        path: a checkpoint folder, a pointer such as ``checkpoints/best``, a ``checkpoints`` folder or a run's output
            folder; the last two stand for their last checkpoint.

    Raises:
        FileNotFoundError: if there is nothing at ``path``, or no checkpoint in it.
        ValueError: if it is not a complete checkpoint; the message says what is wrong.
    """
    path = Path(path)
    points = path.is_symlink() or path.name in POINTERS
    folder = (pointer_target(path) if points else None) or path
    if not folder.exists():
        raise FileNotFoundError(f"checkpoint {path}: no such folder")
    if not folder.is_dir():
        raise ValueError(f"checkpoint {path} is a file; expected a checkpoint folder with {METADATA}")
    if not (folder / METADATA).is_file():
        last = find_last_checkpoint(folder)
        if last is None:
            raise FileNotFoundError(f"{path} is no checkpoint ({METADATA} is missing) and holds none")
        return load_checkpoint(last)
    return Checkpoint(folder, _checked_metadata(folder))


def find_last_checkpoint(output_dir: str | Path) -> Path | None:
    """The newest complete checkpoint of a run.

    Args:
        output_dir: a run's output folder, or its ``checkpoints``.

    Returns:
        Its folder, or ``None``. Unfinished and damaged folders are passed over.
    """
    folder = _checkpoints_folder(Path(output_dir))
    target = pointer_target(folder / "last")
    if target is not None and _is_complete(target):
        return target
    complete = list_checkpoints(folder)
    return complete[-1].path if complete else None


def list_checkpoints(output_dir: str | Path) -> list[Checkpoint]:
    """The complete checkpoints of a run, the newest last."""
    folder = _checkpoints_folder(Path(output_dir))
    found = [load_checkpoint(path) for path in folder.glob("step_*") if _is_complete(path)]
    return sorted(found, key=lambda c: (c.metadata.get("saved_at", 0.0), c.step))


def _checkpoints_folder(path: Path) -> Path:
    return path / "checkpoints" if (path / "checkpoints").is_dir() else path


def _is_complete(folder: Path) -> bool:
    try:
        return bool(_checked_metadata(folder))
    except (OSError, ValueError):
        return False


def _checked_metadata(folder: Path) -> dict[str, Any]:
    file = folder / METADATA
    try:
        metadata = json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise ValueError(f"{file} does not belong to a hydet checkpoint")
    if metadata["format_version"] > FORMAT_VERSION:
        raise ValueError(f"{folder} was written by a newer hydet (format {metadata['format_version']})")
    for name, size in metadata["files"].items():
        if not (folder / name).is_file():
            raise ValueError(f"checkpoint {folder} is incomplete: {name} is missing")
        actual = (folder / name).stat().st_size
        if actual != size and name != CONFIG:  # people do edit configs
            raise ValueError(f"checkpoint {folder} is damaged: {name} has {actual} bytes, expected {size}")
    return metadata


def _separate(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, contiguous, no two sharing memory: what safetensors takes."""
    owners: set[int] = set()
    separate = {}
    for name, tensor in weights.items():
        tensor = tensor.detach().cpu().contiguous()
        owner = tensor.untyped_storage().data_ptr()
        if owner in owners or tensor.untyped_storage().nbytes() != tensor.nbytes:
            tensor = tensor.clone()
        owners.add(owner)
        separate[name] = tensor
    return separate


def _plain(value: Any, where: str) -> Any:
    """As containers, tensors and numbers that ``torch.load(weights_only=True)`` reads back."""
    if value is None or isinstance(value, bool | int | float | str | bytes | complex):
        if isinstance(value, np.generic):
            return value.item()
        return value
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, Counter):
        return Counter({_plain(k, where): v for k, v in value.items()})
    if isinstance(value, Mapping):
        return {_plain(k, where): _plain(v, f"{where}[{k!r}]") for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v, f"{where}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, tuple):
        return tuple(_plain(v, f"{where}[{i}]") for i, v in enumerate(value))
    if isinstance(value, Path):
        return str(value)
    raise TypeError(
        f"{where} is a {type(value).__module__}.{type(value).__qualname__}: checkpoints hold tensors, numbers, "
        "strings, and lists and dicts of them"
    )


def _yaml(config: Any) -> str:
    if config is None:
        return "{}\n"
    if not isinstance(config, DictConfig | ListConfig):
        config = OmegaConf.create(config)
    return OmegaConf.to_yaml(config)


def _json(value: Any) -> Any:
    """NaN has no place in JSON: null."""
    if isinstance(value, Mapping):
        return {str(k): _json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_json(v) for v in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    return value
