"""Tables of the types of the values that commands read from a config.

A value of the wrong type ends a command with its key, before any data are loaded or any model is built.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hydet.config import ConfigError, explain

__all__ = [
    "BENCHMARK_VALUES",
    "EVALUATE_VALUES",
    "EXPORT_VALUES",
    "PREDICT_VALUES",
    "STORED_VALUES",
    "TRAIN_VALUES",
    "TTA_VALUES",
    "ValueType",
    "check_values",
]

_MISSING = "???"
_LARGEST = 2**63 - 1  # of a 64-bit integer; torch and NumPy take no larger seed or size


@dataclass(frozen=True)
class ValueType:
    """The values that a key takes.

    Attributes:
        description: as in "seed must be a whole number".
        accepts: function that returns True for a valid value.
    """

    description: str
    accepts: Callable[[Any], bool]

    def or_null(self) -> ValueType:
        """Return the type that also takes null."""
        return ValueType(f"{self.description}, or null", lambda value: value is None or self.accepts(value))


def _whole(minimum: int, maximum: int = _LARGEST) -> ValueType:
    limit = f" up to {maximum}" if maximum < _LARGEST else ""
    return ValueType(
        f"a whole number from {minimum}{limit}"
        if minimum or limit
        else "a whole number that is not negative",
        lambda value: isinstance(value, int) and not isinstance(value, bool) and minimum <= value <= maximum,
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _either(*choices: str) -> ValueType:
    return ValueType(" or ".join(choices), lambda value: value in choices)


_COUNT, _POSITIVE_COUNT = _whole(0), _whole(1)
_POSITIVE = ValueType("a number above 0", lambda value: _is_number(value) and value > 0)
_NOT_NEGATIVE = ValueType("a number that is not negative", lambda value: _is_number(value) and value >= 0)
_FRACTION = ValueType("a number in [0, 1]", lambda value: _is_number(value) and 0 <= value <= 1)
_SWITCH = ValueType("true or false", lambda value: isinstance(value, bool))
_TEXT = ValueType("text", lambda value: isinstance(value, str))
_PATH = ValueType(
    "a path", lambda value: isinstance(value, str | int) and not isinstance(value, bool) and value != ""
)
_SECTION = ValueType("a section", lambda value: isinstance(value, Mapping))
_BACKEND = _either("faster_coco_eval", "pycocotools")
_NAMES = ValueType(
    "a list of packages", lambda value: isinstance(value, list) and all(isinstance(v, str) for v in value)
)
_TWO_COUNTS = ValueType(
    "two whole numbers, for training and evaluation",
    lambda value: (
        isinstance(value, list) and len(value) == 2 and all(_POSITIVE_COUNT.accepts(v) for v in value)
    ),
)
_SIZE = ValueType(
    "a height and a width from 64",
    lambda value: isinstance(value, list) and len(value) == 2 and all(_whole(64).accepts(v) for v in value),
)
_INFERENCE = _either("exact", "fast", "bf16")
_RESUME = ValueType(
    "true, false, auto or the path of a checkpoint",
    lambda value: isinstance(value, bool) or (isinstance(value, str) and value != ""),
)
_VERIFY = ValueType("full or off", lambda value: value in ("full", "off", True, False))
_SIDES = ValueType(
    "a list of whole numbers",
    lambda value: (
        isinstance(value, list) and len(value) > 0 and all(_POSITIVE_COUNT.accepts(v) for v in value)
    ),
)
_SCALES = ValueType(
    "a list of numbers above 0",
    lambda value: isinstance(value, list) and len(value) > 0 and all(_POSITIVE.accepts(v) for v in value),
)
_IMAGE_SIZES = ValueType(
    "a list of pairs [height, width] in pixels",
    lambda value: (
        isinstance(value, list)
        and len(value) > 0
        and all(isinstance(v, list) and len(v) == 2 and all(map(_POSITIVE_COUNT.accepts, v)) for v in value)
    ),
)
# No machine has processors for more worker processes.
_WORKERS = _whole(0, 1024)

_VALUE_RANGE = ValueType(
    "auto, full, minmax or two numbers [low, high]",
    lambda value: (
        value in ("auto", "full", "minmax")
        or (
            isinstance(value, list)
            and len(value) == 2
            and all(map(_is_number, value))
            and value[0] < value[1]
        )
    ),
)

_PROPOSALS: Mapping[str, ValueType] = {
    "proposals": _SECTION,
    "proposals.train": _PATH.or_null(),
    "proposals.val": _PATH.or_null(),
    "proposals.topk": _TWO_COUNTS,
}
_TILING: Mapping[str, ValueType] = {
    "tile": _POSITIVE_COUNT.or_null(),
    "overlap": ValueType("a number from 0 to below 1", lambda value: _is_number(value) and 0 <= value < 1),
}
TTA_VALUES: Mapping[str, ValueType] = {
    "tta": _SECTION.or_null(),
    "tta.scales": _SCALES.or_null(),
    "tta.min_sizes": _SIDES.or_null(),
    "tta.max_size": _POSITIVE_COUNT.or_null(),
    "tta.flip": _SWITCH,
    "tta.batch_size": _POSITIVE_COUNT,
}
_EVALUATION: Mapping[str, ValueType] = {
    "evaluation": _SECTION,
    "evaluation.every": _COUNT,
    "evaluation.batch_size": _POSITIVE_COUNT,
    "evaluation.with_losses": _SWITCH,
    "evaluation.pictures": _COUNT,
    "evaluation.metric": _TEXT.or_null(),
    "evaluation.backend": _BACKEND,
    "evaluation.max_detections": _POSITIVE_COUNT,
}

# Values of a stored config that evaluate and predict read.
STORED_VALUES: Mapping[str, ValueType] = {
    **_EVALUATION,
    **_PROPOSALS,
    "num_workers": _WORKERS,
    "num_classes": _COUNT,
    "model": _SECTION,
    "augment": _SECTION,
    "augment.test": _SECTION,
    "data": _SECTION,
    "data.name": _TEXT.or_null(),
    "data.value_range": _VALUE_RANGE,
    "data.max_pixels": _POSITIVE_COUNT,
    "evaluators": _SECTION,
}

TRAIN_VALUES: Mapping[str, ValueType] = {
    "training": _either("exact", "fast"),
    "compile": _SWITCH,
    **STORED_VALUES,
    "augment.train": _SECTION,
    "optimizer": _SECTION,
    "optimizer.lr": _POSITIVE.or_null(),
    "optimizer.weight_decay": _NOT_NEGATIVE,
    "optimizer.momentum": _NOT_NEGATIVE,
    "schedule": _SECTION.or_null(),
    "schedule.warmup_steps": _NOT_NEGATIVE,
    "schedule.warmup_factor": _NOT_NEGATIVE,
    "schedule.max_warmup_fraction": _NOT_NEGATIVE,
    "trainer": _SECTION,
    "trainer.max_steps": _POSITIVE_COUNT,
    "trainer.precision": _either("auto", "fp32", "bf16", "fp16"),
    "trainer.accumulate": _POSITIVE_COUNT,
    "trainer.clip_norm": _POSITIVE.or_null(),
    "trainer.clip_value": _POSITIVE.or_null(),
    "trainer.clip_parameter_norm": _POSITIVE.or_null(),
    "trainer.device": _TEXT,
    "trainer.find_unused_parameters": _SWITCH,
    "callbacks": _SECTION.or_null(),
    "logger": _SECTION.or_null(),
    "sampler": _SECTION,
    "parameter_groups": _SECTION,
    "batch_size": _POSITIVE_COUNT,
    "distributed_timeout": _POSITIVE,
    "seed": _COUNT,
    "init_from": _PATH.or_null(),
    "resume": _RESUME,
    "verify": _VERIFY,
    "vis_period": _COUNT,
}

EVALUATE_VALUES: Mapping[str, ValueType] = {
    "checkpoint": _PATH,
    "verify": _VERIFY,
    "inference": _INFERENCE,
    "compile": _SWITCH,
    "split": _either("train", "val"),
    **{key: kind for key, kind in _PROPOSALS.items() if key != "proposals.topk"},
    "device": _TEXT,
    "batch_size": _POSITIVE_COUNT.or_null(),
    "num_workers": _WORKERS.or_null(),
    **_TILING,
    "backend": _BACKEND.or_null(),
    "distributed_timeout": _POSITIVE,
    "changes": _SECTION,
    "allow": _NAMES,
    "data": _SECTION.or_null(),
    "evaluators": _SECTION.or_null(),
    **TTA_VALUES,
}

BENCHMARK_VALUES: Mapping[str, ValueType] = {
    "image_size": _SIZE,
    "batch_size": _POSITIVE_COUNT,
    "inference": _INFERENCE,
    "compile": _SWITCH,
    "work": _either("inference", "training"),
    "against": _either("exact", "torchvision").or_null(),
    "graph": _SWITCH,
    "peak_memory": _either("apart", "here").or_null(),
    "runs": _POSITIVE_COUNT,
    "warmup": _COUNT,
    "threads": _POSITIVE_COUNT.or_null(),
    "device": _TEXT,
}

PREDICT_VALUES: Mapping[str, ValueType] = {
    "checkpoint": _PATH,
    "verify": _VERIFY,
    "input": _PATH,
    **_TILING,
    **TTA_VALUES,
    "save_video": _SWITCH.or_null(),
    "track": _SWITCH,
    "inference": _INFERENCE,
    "compile": _SWITCH,
    "score_threshold": _FRACTION,
    "batch_size": _POSITIVE_COUNT,
    "value_range": _VALUE_RANGE.or_null(),
    "max_pixels": _POSITIVE_COUNT.or_null(),
    "device": _TEXT,
    "changes": _SECTION,
    "allow": _NAMES,
}

EXPORT_VALUES: Mapping[str, ValueType] = {
    "checkpoint": _PATH,
    "verify": _VERIFY,
    "format": _either("onnx", "torch_export", "aoti"),
    "precision": _either("fp32", "bf16", "fp16"),
    "sizes": _IMAGE_SIZES.or_null(),
    "images": _PATH.or_null(),
    "device": _TEXT,
    "changes": _SECTION,
    "allow": _NAMES,
}


def check_values(
    config: DictConfig | Mapping[str, Any], types: Mapping[str, ValueType], *, required: Sequence[str] = ()
) -> None:
    """Check the values of a config that have a declared type; keys that the config lacks are skipped.

    Args:
        config: a composed config, or plain containers.
        types: key, dotted from the root -> type.
        required: keys that must have a value.

    Raises:
        ConfigError: names the key, its type and the value.
    """
    try:
        plain = OmegaConf.to_container(config, resolve=True) if isinstance(config, DictConfig) else config
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from error
    for key in required:
        if next(_values_at(plain, key), _MISSING) == _MISSING:
            raise ConfigError(f"{key} is not set: {key}={types[key].description.replace(' ', '_').upper()}")
    for key, kind in types.items():
        for value in _values_at(plain, key):
            if value != _MISSING and not kind.accepts(value):
                shown = "null" if value is None else repr(value)
                raise ConfigError(f"{key} must be {kind.description}, got {shown[:80]}")


def _values_at(config: Any, key: str) -> Iterator[Any]:
    """Yield the value of a key, or nothing if the config lacks it."""
    for name in key.split("."):
        if not isinstance(config, Mapping) or name not in config:
            return
        config = config[name]
    yield config
