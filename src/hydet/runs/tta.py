"""Test-time augmentation with the settings of ``conf/tta``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from omegaconf import DictConfig
from torch import nn

from hydet.config import ConfigError, compose
from hydet.data import InputMapper, Metadata, Record, ResizeShortestEdge
from hydet.modeling import DatasetMapperTTA, make_tta
from hydet.modeling.protocols import Detector

from .config_values import TTA_VALUES, check_values

__all__ = ["add_tta", "check_tile_and_tta", "read_tta"]

# Upper bound of the longer side, in multiples of the shorter one: 4000 for 800, as in the published configurations.
LONGER_SIDE_LIMIT = 5


def check_tile_and_tta(tile: int | None, tta: object) -> None:
    """Raise ``ConfigError`` if both are given."""
    if tile is not None and tta is not None:
        raise ConfigError("tile and tta exclude each other: tiles have their original resolution")


def read_tta(tta: str | Mapping[str, Any]) -> DictConfig:
    """Return settings of test-time augmentation.

    Args:
        tta: the name of an option of ``conf/tta``, or settings that replace those of ``conf/tta/default.yaml``.

    Raises:
        ConfigError: if there is no such option or setting, or a value does not fit.
    """
    name, changes = (tta, {}) if isinstance(tta, str) else ("default", tta)
    config = compose("checkpoint=loaded", "input=images", f"tta={name}", config_name="predict")
    unknown = [key for key in changes if key not in config.tta]
    if unknown:
        raise ConfigError(f"tta has no {unknown[0]!r}, only {', '.join(map(str, config.tta))}")
    config.tta.update(changes)
    check_values(config, TTA_VALUES)
    settings: DictConfig = config.tta
    return settings


def add_tta(
    tta: DictConfig,
    model: object,
    mapper: InputMapper,
    metadata: Metadata,
    *,
    first_record: Callable[[], Record] | None = None,
) -> tuple[nn.Module, DatasetMapperTTA]:
    """Wrap a model in test-time augmentation. Its inputs are images in their original size.

    Args:
        tta: see ``conf/tta/default.yaml``.
        model: a detector in evaluation mode.
        mapper: its resizing determines the sizes, unless the settings state them.
        metadata: names the keypoints that change places in mirrored images.
        first_record: returns an image that determines the sizes if the mapper does not resize.

    Returns:
        The wrapped model, and the mapper that makes the augmented images.

    Raises:
        ConfigError: if the model is not a detector of hydet, or nothing determines the sizes.
    """
    if not isinstance(model, Detector):
        raise ConfigError(f"tta: {type(model).__name__} does not implement hydet.modeling.Detector")
    side = _shorter_side(mapper, first_record)
    if side is None and (tta.min_sizes is None or tta.max_size is None):
        raise ConfigError(
            "tta: the model sees images in their own size, so min_sizes and max_size are needed, in pixels"
        )
    sizes = tta.min_sizes if tta.min_sizes is not None else [round(scale * side) for scale in tta.scales]
    tta_mapper = DatasetMapperTTA(
        min_sizes=list(sizes), max_size=tta.max_size or LONGER_SIDE_LIMIT * (side or 0), flip=tta.flip
    )
    wrapped = make_tta(
        model=model,
        tta_mapper=tta_mapper,
        batch_size=tta.batch_size,
        keypoint_flip_indices=metadata.keypoint_flip_indices if metadata.mirrors_keypoints else None,
    )
    return wrapped, tta_mapper


def _shorter_side(mapper: InputMapper, first_record: Callable[[], Record] | None) -> int | None:
    """Return the shorter side of the images that the model sees, in pixels."""
    for transform in mapper.transforms:
        if isinstance(transform, ResizeShortestEdge) and len(transform.short) == 1:
            return int(transform.short[0])
    if first_record is None:
        return None
    return min(mapper(first_record())["image"].shape[1:])
