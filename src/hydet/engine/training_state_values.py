"""Check the content of ``training_state.pt``, which may come from an untrusted source or another program."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeGuard

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from hydet.data import DataError

from .protocols import StateDict

__all__ = ["check_like", "check_optimizer_values", "check_training_state", "naming_state_errors"]

_TYPES: tuple[tuple[type | tuple[type, ...], str], ...] = (
    ((bool, int, float), "a number"),
    (str, "text"),
    (Tensor, "a tensor"),
    ((list, tuple), "a list"),
    (Mapping, "a mapping"),
)
# Values that an optimizer needs for each parameter that has been updated.
_OPTIMIZER_KEYS = (
    (torch.optim.Adam, ("step", "exp_avg", "exp_avg_sq")),
    (torch.optim.AdamW, ("step", "exp_avg", "exp_avg_sq")),
)
_SHAPED_LIKE_PARAMETERS = (
    "momentum_buffer",
    "exp_avg",
    "exp_avg_sq",
    "max_exp_avg_sq",
    "square_avg",
    "exp_inf",
)


@contextlib.contextmanager
def naming_state_errors(path: Path, key: str) -> Iterator[None]:
    """Raise the errors of a block that restores one key of a training state with the names of the file and the key.

    Optimizers, schedules and callbacks do not check what they load, and raise errors of many kinds.

    Raises:
        DataError: if the block raises an error of data. Errors of data that name the file already pass through.
    """
    try:
        yield
    except (
        ArithmeticError,
        AttributeError,
        AssertionError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        if str(path) in str(error) or str(path.parent) in str(error):
            raise
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"{path}: {key} cannot be restored ({type(error).__name__}: {reason})") from error


def check_training_state(state: object, path: Path) -> TypeGuard[StateDict]:
    """Check the keys of a training state, and the types of their values as far as every run has them.

    Args:
        state: content of the file.
        path: the file.

    Raises:
        DataError: if a key is missing or has another type; the message names the file and the key.
    """
    if not isinstance(state, Mapping):
        raise DataError(f"{path} holds no training state, but a {type(state).__name__}")
    for key, (is_valid, expected) in _KEYS.items():
        if key not in state:
            raise DataError(f"{path}: {key} is missing")
        if not is_valid(state[key]):
            raise DataError(f"{path}: {key} must be {expected}, got {_shorten(state[key])}")
    for key in ("model", "settings"):
        if state.get(key) is not None and not _is_mapping(state[key]):
            raise DataError(f"{path}: {key} must be a mapping, got {_shorten(state[key])}")
    for index, values in state["optimizer"]["state"].items():
        step = values.get("step", 0)
        if not isinstance(step, int | float) and not (isinstance(step, Tensor) and step.numel() == 1):
            raise DataError(
                f"{path}: optimizer, parameter {index}: step must be a number, got {_shorten(step)}"
            )
    for rank, states in enumerate(state["random"]):
        _check_random_state(states, path, f"random[{rank}]")
    return True


def check_like(value: object, template: object, where: str) -> None:
    """Check that a stored value has the type of the present one: a number, text, a tensor, a list or a mapping.

    Args:
        value: the stored value. Keys that only one of two mappings has are not compared.
        template: the present value. None says nothing about the type.
        where: file and key, for the message.

    Raises:
        DataError: if the types differ.
    """
    if template is None or value is None:
        return
    numbers = int | float | Tensor
    if isinstance(template, numbers) and isinstance(value, Tensor) and value.numel() == 1:
        return  # a learning rate may be a number or a tensor
    if isinstance(template, Tensor) and isinstance(value, numbers):
        return
    for types, expected in _TYPES:
        if isinstance(template, types):
            if not isinstance(value, types):
                raise DataError(f"{where} must be {expected}, got {_shorten(value)}")
            break
    if isinstance(template, Mapping) and isinstance(value, Mapping):
        for key in template.keys() & value.keys():
            check_like(value[key], template[key], f"{where}[{key!r}]")
    if isinstance(template, list | tuple) and isinstance(value, list | tuple) and template:
        for i, item in enumerate(value):
            check_like(item, template[0], f"{where}[{i}]")


def check_optimizer_values(optimizer: Optimizer, names: Mapping[Tensor, str], path: Path) -> None:
    """Check the values that an optimizer has loaded, since it would fail at its next step.

    Args:
        optimizer: an optimizer with a loaded state.
        names: names of the parameters.
        path: the file.

    Raises:
        DataError: if a value is missing, or has another type or shape than its parameter needs.
    """
    required = next((keys for kind, keys in _OPTIMIZER_KEYS if isinstance(optimizer, kind)), ())
    for parameter, values in optimizer.state.items():
        where = f"{path}: optimizer, {names.get(parameter, 'a parameter')}"
        for key in required:
            if key not in values:
                raise DataError(f"{where}: {key} is missing")
        for key, value in values.items():
            shape = tuple(parameter.shape)
            is_shaped = isinstance(value, Tensor) and tuple(value.shape) == shape
            if key in _SHAPED_LIKE_PARAMETERS and value is not None and not is_shaped:
                raise DataError(f"{where}: {key} must be a tensor of shape {shape}, got {_shorten(value)}")


def _check_random_state(state: object, path: Path, where: str) -> None:
    """Check the states of the generators of a process by giving them to generators that nothing uses."""
    if not isinstance(state, Mapping):
        raise DataError(f"{path}: {where} must be a mapping, got {_shorten(state)}")
    with naming_state_errors(path, f"{where}[torch]"):
        torch.Generator().set_state(state["torch"])
    with naming_state_errors(path, f"{where}[python]"):
        version, words, cached_normal = state["python"]
        random.Random().setstate((version, tuple(words), cached_normal))
    with naming_state_errors(path, f"{where}[numpy]"):
        name, words, position, has_normal, cached = state["numpy"]
        words = words.numpy().astype(np.uint32)
        np.random.RandomState(0).set_state((name, words, position, has_normal, cached))
    cuda = state.get("cuda")
    if cuda is not None and not (isinstance(cuda, Tensor) and cuda.dtype == torch.uint8):
        raise DataError(f"{path}: {where}[cuda] must be a tensor of bytes, got {_shorten(cuda)}")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_mapping(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def _is_mapping_or_none(value: object) -> bool:
    return value is None or _is_mapping(value)


def _is_mapping_of_mappings(value: object) -> bool:
    return isinstance(value, Mapping) and _is_mapping(value) and all(map(_is_mapping, value.values()))


def _is_metrics(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(key, str) and isinstance(number, int | float) for key, number in value.items()
    )


def _is_optimizer_state(value: object) -> bool:
    """Return True for groups with indices of parameters, and a mapping of values for each index."""
    if not isinstance(value, Mapping):
        return False
    state, groups = value.get("state"), value.get("param_groups")
    return (
        isinstance(state, Mapping)
        and all(isinstance(entry, Mapping) for entry in state.values())
        and isinstance(groups, list)
        and all(isinstance(group, Mapping) and isinstance(group.get("params"), list) for group in groups)
    )


def _shorten(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of {value.dtype} and shape {tuple(value.shape)}"
    if isinstance(value, Mapping | list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


_KEYS: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "step": (_is_count, "a number of steps"),
    "metrics": (_is_metrics, "names with numbers"),
    "random": (lambda value: isinstance(value, list), "a list with one entry per process"),
    "optimizer": (_is_optimizer_state, "the state of an optimizer, a mapping with state and param_groups"),
    "scheduler": (_is_mapping_or_none, "a mapping or None"),
    "scaler": (_is_mapping, "a mapping"),
    "loader": (_is_mapping_or_none, "a mapping or None"),
    "modules": (_is_mapping_of_mappings, "a mapping of mappings"),
    "callbacks": (_is_mapping_of_mappings, "a mapping of mappings"),
}
