"""Convert values to what the files of a checkpoint can hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import Tensor

__all__ = ["ConfigLike", "to_json_values", "to_loadable", "to_separate_tensors", "to_yaml"]

ConfigLike: TypeAlias = DictConfig | ListConfig | Mapping[str, Any] | list[Any]


def to_separate_tensors(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights on the CPU, contiguous, and without shared memory, as safetensors requires."""
    storages: set[int] = set()
    separate = {}
    for name, tensor in weights.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage()
        if storage.data_ptr() in storages or storage.nbytes() != tensor.nbytes:
            tensor = tensor.clone()
        storages.add(storage.data_ptr())
        separate[name] = tensor
    return separate


def to_loadable(value: Any, where: str) -> Any:
    """Convert a value to containers, tensors and numbers that ``torch.load(weights_only=True)`` reads.

    Args:
        value: the value.
        where: its name in error messages.

    Raises:
        TypeError: if the value holds an object that only pickle can store; the message says where it is.
    """
    if isinstance(value, np.generic):  # before the numbers: np.float64 is a float, but is not loadable
        return value.item()
    if value is None or type(value) in (bool, int, float, str, bytes, complex):
        return value
    if isinstance(value, str):  # enumerations and other subclasses, whose class is not loadable
        return str.__str__(value)
    for kind in (int, float):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, Counter):  # MultiStepLR keeps its milestones in one
        return Counter({to_loadable(k, where): v for k, v in value.items()})
    if isinstance(value, Mapping):
        return {to_loadable(k, where): to_loadable(v, f"{where}[{k!r}]") for k, v in value.items()}
    if isinstance(value, list):
        return [to_loadable(v, f"{where}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, tuple):
        return tuple(to_loadable(v, f"{where}[{i}]") for i, v in enumerate(value))
    if isinstance(value, Path):
        return str(value)
    raise TypeError(
        f"{where} is a {type(value).__module__}.{type(value).__qualname__}: checkpoints hold tensors, numbers, "
        "strings, and lists and dicts of them"
    )


def to_yaml(config: ConfigLike | None) -> str:
    """Return a config as YAML text; no config gives an empty mapping."""
    if config is None:
        return "{}\n"
    if not isinstance(config, DictConfig | ListConfig):
        config = OmegaConf.create(dict(config) if isinstance(config, Mapping) else config)
    return OmegaConf.to_yaml(config)


def to_json_values(value: object) -> object:
    """Convert containers and NumPy numbers to JSON values; NaN and infinity, which JSON lacks, become null."""
    if isinstance(value, Mapping):
        return {str(k): to_json_values(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_json_values(v) for v in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    return value
