"""Read weight files of any library, by their content."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hydet.data import DataError
from hydet.data.proposals.array_pickle import read_array_pickle, to_array

from .converters import CONVERTERS
from .foreign import ForeignWeights
from .tensor_files import STATE_DICT_KEYS, FileKind, read_safetensors_file, read_torch_file, sniff_kind

__all__ = ["WEIGHT_SUFFIXES", "read_foreign"]

WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".pyth", ".pkl")
_MAX_REASON = 200  # characters
_STRIP_PICKLE = (
    "if you trust its source, save the arrays alone: python -c \"import pickle; d = pickle.load(open('{name}', 'rb'), "
    "encoding='latin1'); pickle.dump({{'model': d.get('model', d)}}, open('weights.pkl', 'wb'))\""
)


def read_foreign(path: str | Path, *, by_suffix: bool | None = None) -> ForeignWeights:
    """Read a weight file of hydet or another library, without running anything in it.

    Args:
        path: a ``.safetensors`` file, a file of ``torch.save`` with a state dict (bare, or under ``model``, ``state_dict``,
            ``model_state_dict`` or ``model_state``), or a pickle of NumPy arrays as in the reference zoo and Caffe2.
        by_suffix: True matches the names in the file with the ends of those in a model, False requires equal names.
            By default, the file decides.

    Raises:
        FileNotFoundError: if the file does not exist.
        DataError: if the file is damaged, has another format, or would execute code when it is loaded.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"weights {path}: no such file")
    kind = sniff_kind(path)
    if kind == "safetensors":
        weights = _convert(path, read_safetensors_file(path), {}, {})
    else:
        weights = _read_state_dict(path, kind)
    return weights if by_suffix is None else replace(weights, by_suffix=by_suffix)


def _read_state_dict(path: Path, kind: FileKind) -> ForeignWeights:
    if kind == "pickle":
        loaded = read_array_pickle(path, remedy=_STRIP_PICKLE.format(name=path.name))
    else:
        loaded = read_torch_file(path, drop_values=True)
    values, meta = _split_state_dict(path, loaded)
    tensors, skipped = _select_tensors(path, values)
    has_heuristics = meta.get("matching_heuristics") is True
    if "__author__" in meta:
        return ForeignWeights(path, "detectron2", tensors, skipped=skipped, by_suffix=has_heuristics)
    if "model_state" in meta:
        tensors = {name: t for name, t in tensors.items() if not name.endswith("num_batches_tracked")}
        return ForeignWeights(path, "pycls", tensors, skipped=skipped, by_suffix=True)
    weights = _convert(path, tensors, meta, skipped)
    # Pickles without an author are older than the names of the reference.
    return replace(weights, by_suffix=weights.by_suffix or has_heuristics or kind == "pickle")


def _convert(
    path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, object], skipped: Mapping[str, str]
) -> ForeignWeights:
    try:
        converter = next((c for c in CONVERTERS if c.fits(tensors)), None)
        if converter is None:
            return ForeignWeights(path, "state dict", tensors, skipped=skipped)
        weights = converter.convert(path, tensors, meta)
    except DataError:
        raise
    except Exception as error:  # a state dict of these names may lack any tensor, or have any shapes
        reason = f"{type(error).__name__}: {error}"[:_MAX_REASON]
        raise DataError(
            f"{path} has names of another library, but not the tensors of one of its models ({reason})"
        ) from error
    return replace(weights, skipped={**weights.skipped, **skipped})


def _split_state_dict(path: Path, loaded: object) -> tuple[Mapping[object, object], dict[str, object]]:
    """Return the state dict in a file, and the other values by key."""
    if not isinstance(loaded, Mapping):
        raise DataError(f"{path} holds no state dict, but a {type(loaded).__name__}")
    for key in STATE_DICT_KEYS:
        if isinstance(loaded.get(key), Mapping):
            meta = {str(k): value for k, value in loaded.items() if k != key}
            if key == "model_state":  # as in pycls
                meta[key] = True
            return loaded[key], meta
    return loaded, {}


def _select_tensors(path: Path, values: Mapping[object, object]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a state dict, and the reasons why other values are none.

    Raises:
        DataError: if there is no tensor, or one of a kind that no layer holds.
    """
    tensors: dict[str, Tensor] = {}
    skipped: dict[str, str] = {}
    converted: dict[int, Tensor] = {}  # by id, as one array may have any number of names
    for name, stored in values.items():
        try:
            value = to_array(stored)
        except (ValueError, pickle.UnpicklingError) as error:
            raise DataError(f"{path}: {name} is damaged: {error}") from error
        if isinstance(value, np.ndarray):
            if id(stored) not in converted:
                converted[id(stored)] = _to_tensor(path, str(name), value)
            tensors[str(name)] = converted[id(stored)]
        elif isinstance(value, Tensor):
            if value.layout != torch.strided or value.is_meta or value.is_quantized or value.is_nested:
                raise DataError(f"{path}: {name} is not a plain tensor with values")
            tensors[str(name)] = value
        else:
            skipped[str(name)] = f"a {type(value).__name__}, not a tensor"
    if not tensors:
        raise DataError(f"{path} holds no state dict")
    if all(name.startswith("module.") for name in tensors):  # saved from a DistributedDataParallel wrapper
        tensors = {name.removeprefix("module."): v for name, v in tensors.items()}
    return tensors, skipped


def _to_tensor(path: Path, name: str, array: np.ndarray) -> Tensor:
    native = array.astype(array.dtype.newbyteorder("="), order="C")  # a copy, which torch may write to
    try:
        return torch.from_numpy(native)
    except TypeError as error:
        raise DataError(f"{path}: {name} has the type {array.dtype}, which torch lacks") from error
