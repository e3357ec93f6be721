"""Checkpoints: folders that hold weights, training state, config and class names.

```
<output_dir>/checkpoints/
  step_00001000/    model.safetensors  training_state.pt  config.yaml  metadata.json
  last, best        links to one of the folders
```
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

import torch
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import save_file
from torch import Tensor

from hydet.files import atomic_folder, hash_file
from hydet.interop.tensor_files import read_safetensors_file, read_torch_file

from .checkpoint_values import ConfigLike, to_json_values, to_loadable, to_separate_tensors, to_yaml
from .config_file import read_config_file
from .metadata_file import FORMAT, FORMAT_VERSION, read_metadata_file
from .protocols import StateDict

__all__ = ["METADATA", "Checkpoint", "CheckpointMetadata", "read_checkpoint", "save_checkpoint"]

WEIGHTS, STATE, CONFIG, METADATA = "model.safetensors", "training_state.pt", "config.yaml", "metadata.json"


class CheckpointMetadata(TypedDict):
    """Content of ``metadata.json``.

    Keys:
        step: number of optimizer steps done.
        max_steps: number of optimizer steps of the whole run.
        world_size: number of processes of the run.
        metrics: metrics of the latest evaluation; null for NaN.
        dataset: ``to_dict()`` of the training set's ``hydet.data.Metadata``, or null.
        source: where converted weights come from.
        format: name of the file format.
        format_version: version of the file format.
        torch: version of torch that wrote the checkpoint.
        saved_at: time of writing, in seconds since 1970.
        files: size of each other file, in bytes.
        sha256: hash of the weights and of the training state, in hexadecimal digits; checkpoints of 0.1 have none.
    """

    step: int
    max_steps: NotRequired[int]
    world_size: NotRequired[int]
    metrics: NotRequired[dict[str, float | None] | None]
    dataset: NotRequired[dict[str, Any] | None]
    source: NotRequired[str]
    format: NotRequired[str]
    format_version: NotRequired[int]
    torch: NotRequired[str]
    saved_at: NotRequired[float]
    files: NotRequired[dict[str, int]]
    sha256: NotRequired[dict[str, str]]


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint on disk, whose files are read on access.

    Attributes:
        path: folder of the checkpoint.
        metadata: content of ``metadata.json``.
        verify: compare the hash of a file with that in the metadata before it is read. Without this, a changed byte in
            the weights is loaded without an error.
    """

    path: Path
    metadata: CheckpointMetadata
    verify: bool = True

    @property
    def step(self) -> int:
        """Number of optimizer steps done."""
        return int(self.metadata["step"])

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics of the latest evaluation before the checkpoint was written."""
        metrics = self.metadata.get("metrics") or {}
        return {name: math.nan if value is None else value for name, value in metrics.items()}

    @property
    def dataset(self) -> dict[str, Any] | None:
        """``to_dict()`` of the training set's ``hydet.data.Metadata``."""
        return self.metadata.get("dataset")

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Class names, or None if the run had no metadata."""
        return tuple(self.dataset["thing_classes"]) if self.dataset else None

    @cached_property
    def config(self) -> DictConfig:
        """Config of the run; empty if the run had none.

        Raises:
            ValueError: if the file is damaged.
        """
        return OmegaConf.create(read_config_file(self.path / CONFIG))

    def weights(self) -> dict[str, Tensor]:
        """Read the model's state dict to the CPU; if the run averaged its weights, these are the averages.

        Raises:
            ValueError: if the file is damaged.
        """
        self._verify(WEIGHTS)
        return read_safetensors_file(self.path / WEIGHTS)

    def training_state(self) -> StateDict:
        """Read the state that a run needs to continue to the CPU, without executing anything in the file.

        Raises:
            ValueError: if the file is damaged.
        """
        self._verify(STATE)
        state = read_torch_file(self.path / STATE)
        if not isinstance(state, dict):
            raise ValueError(
                f"{self.path / STATE} is damaged: it holds a {type(state).__name__}, not a mapping"
            )
        return state

    def verify_files(self) -> None:
        """Compare the hashes of all files with those in the metadata.

        Raises:
            ValueError: if a file has changed since it was written; the message names it.
        """
        for name in (WEIGHTS, STATE):
            self._verify(name)

    def _verify(self, name: str) -> None:
        expected = (self.metadata.get("sha256") or {}).get(name)
        if self.verify and expected is not None and hash_file(self.path / name) != expected:
            raise ValueError(f"{self.path / name} is damaged: its content has changed since it was written")


def save_checkpoint(
    folder: str | Path,
    *,
    weights: Mapping[str, Tensor],
    training_state: Mapping[str, Any],
    config: ConfigLike | None = None,
    metadata: CheckpointMetadata,
) -> Checkpoint:
    """Write a checkpoint that appears as a whole or not at all.

    Args:
        folder: path of the checkpoint; an existing checkpoint there is replaced.
        weights: state dict of the model. Tensors that share memory are stored once each.
        training_state: tensors, numbers, strings, and lists and dicts of them.
        config: OmegaConf object, or plain containers.
        metadata: JSON values, at least ``step``.

    Raises:
        TypeError: if ``training_state`` holds an object that only pickle can store; the message says where it is.
        WriteError: if writing fails; nothing of the new checkpoint then remains.
    """
    folder = Path(folder)
    state = to_loadable(training_state, "training state")
    with atomic_folder(folder) as new:
        save_file(to_separate_tensors(weights), new / WEIGHTS, metadata={"format": "pt"})
        with (new / STATE).open("wb") as stream:  # a stream keeps the error of a full disk, a path does not
            torch.save(state, stream)
        # safetensors writes through a temporary file that only its owner can read; the other file follows the umask.
        shutil.copymode(new / STATE, new / WEIGHTS)
        (new / CONFIG).write_text(to_yaml(config), encoding="utf-8", newline="\n")
        content = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "torch": torch.__version__,
            "saved_at": time.time(),
            **metadata,
            "files": {name: (new / name).stat().st_size for name in (WEIGHTS, STATE, CONFIG)},
            "sha256": {name: hash_file(new / name) for name in (WEIGHTS, STATE)},
        }
        text = json.dumps(to_json_values(content), indent=1)
        (new / METADATA).write_text(text, encoding="utf-8", newline="\n")
    return read_checkpoint(folder)


def read_checkpoint(folder: Path, *, verify: bool = True) -> Checkpoint:
    """Read the metadata of a checkpoint folder, and check that its files exist in full.

    Raises:
        ValueError: if the checkpoint is not complete; the message says what is wrong.
    """
    metadata = read_metadata_file(folder / METADATA)
    for name, size in metadata["files"].items():
        if not (folder / name).is_file():
            raise ValueError(f"checkpoint {folder} is incomplete: {name} is missing")
        actual = (folder / name).stat().st_size
        if actual != size and name != CONFIG:  # users edit configs
            raise ValueError(f"checkpoint {folder} is damaged: {name} has {actual} bytes, expected {size}")
    return Checkpoint(folder, cast("CheckpointMetadata", metadata), verify)
