"""Read weight files of any library, by their content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from hydet.data import DataError

from .converters import CONVERTERS
from .foreign import ForeignWeights
from .tensor_files import read_safetensors_file, read_torch_file

__all__ = ["WEIGHT_SUFFIXES", "read_foreign"]

WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".pyth", ".pkl")
_STATE_DICT_KEYS = ("model", "state_dict", "model_state_dict", "model_state")


def read_foreign(path: str | Path, *, by_suffix: bool | None = None) -> ForeignWeights:
    """Read a weight file of hydet or another library, without running anything in it.

    Args:
        path: a file of ``torch.save`` or a ``.safetensors`` file with a state dict.
        by_suffix: True matches the names in the file with the ends of those in a model, False requires equal names.
            By default, the file decides.

    Raises:
        FileNotFoundError: if the file does not exist.
        DataError: if the file is damaged, has another format, or would execute code when it is loaded.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"weights {path}: no such file")
    meta: dict[str, object] = {}
    if path.suffix == ".safetensors":
        tensors = read_safetensors_file(path)
    else:
        tensors, meta = _split_state_dict(path, read_torch_file(path))
    converter = next((c for c in CONVERTERS if c.fits(tensors)), None)
    if converter is not None:
        weights = converter.convert(path, tensors, meta)
    else:
        weights = ForeignWeights(path, "state dict", tensors)
    return weights if by_suffix is None else replace(weights, by_suffix=by_suffix)


def _split_state_dict(path: Path, loaded: object) -> tuple[dict[str, Tensor], dict[str, object]]:
    """Return the state dict in a file, and the other values by key."""
    meta: dict[str, object] = {}
    for key in _STATE_DICT_KEYS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            meta = {str(k): value for k, value in loaded.items() if k != key}
            loaded = loaded[key]
            break
    if not isinstance(loaded, Mapping) or not any(isinstance(v, Tensor) for v in loaded.values()):
        raise DataError(f"{path} holds no state dict")
    tensors = {str(k): v for k, v in loaded.items() if isinstance(v, Tensor)}
    for name, value in tensors.items():
        if value.layout != torch.strided or value.is_meta or value.is_quantized or value.is_nested:
            raise DataError(f"{path}: {name} is not a plain tensor with values")
    if all(name.startswith("module.") for name in tensors):  # saved from a DistributedDataParallel wrapper
        tensors = {name.removeprefix("module."): v for name, v in tensors.items()}
    return tensors, meta
