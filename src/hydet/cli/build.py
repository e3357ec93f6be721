"""From a composed config to the objects of a run, in the order in which they need one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict
from torch import nn

from hydet.config import ConfigError, instantiate
from hydet.data import InputMapper, Metadata, build_test_loader
from hydet.engine import rank, world_size
from hydet.evaluation import CocoEvaluator

__all__ = [
    "build_dataset",
    "build_evaluators",
    "build_mapper",
    "build_model",
    "build_validation_loader",
    "check_keypoints",
    "fill_names",
    "plain",
    "some_names",
    "tasks_of",
]

IOU_TYPES = {"box": "bbox", "mask": "segm", "keypoints": "keypoints"}


def fill_names(config: DictConfig, metadata: Metadata) -> None:
    """Where ``data.class_names`` or ``data.keypoint_names`` is null, take the names of the training data.

    Keypoints belong to classes: those of the data are also taken where only the classes are null.

    Raises:
        ConfigError: if the config counts other classes than the data.
    """
    data = config.data
    with open_dict(data):
        own_classes = data.get("class_names", ()) is None
        if own_classes:
            data.class_names = list(metadata.thing_classes)
        own_keypoints = own_classes and metadata.num_keypoints > 0
        if own_keypoints or data.get("keypoint_names", ()) is None:
            data.keypoint_names = list(metadata.keypoint_names)
    if config.num_classes != metadata.num_classes:
        raise ConfigError(
            f"num_classes is {config.num_classes}, but data.train has classes {some_names(metadata.thing_classes)}"
        )


def build_model(config: DictConfig, *, allowed: Sequence[str] | None = None) -> nn.Module:
    """The model that ``config.model`` describes.

    Args:
        config: a composed config, or the one stored with a checkpoint.
        allowed: see ``hydet.instantiate``.
    """
    model = instantiate(config.model, allowed=allowed)
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"model: {config.model.get('_target_')} gives a {type(model).__name__}, not a model"
        )
    return model


def check_keypoints(config: DictConfig, model: nn.Module, metadata: Metadata) -> None:
    """See that a model of keypoints was built for those of the data.

    Raises:
        ConfigError: if it was not.
    """
    if "keypoints" not in tasks_of(model) or config.num_keypoints == metadata.num_keypoints:
        return
    if not metadata.num_keypoints:
        raise ConfigError("the model predicts keypoints, but data.train has none")
    raise ConfigError(
        f"data.keypoint_names has {config.num_keypoints} names, data.train has keypoints "
        f"{some_names(metadata.keypoint_names)}; data.keypoint_names=null takes those"
    )


def tasks_of(model: nn.Module) -> tuple[str, ...]:
    """What a model predicts: of ``box``, ``mask`` and ``keypoints``, those it has."""
    heads = getattr(model, "roi_heads", None)
    found = ["box"]
    if getattr(heads, "mask_on", False) or getattr(heads, "mask_head", None) is not None:
        found.append("mask")
    if getattr(heads, "keypoint_on", False):
        found.append("keypoints")
    return tuple(found)


def build_dataset(config: DictConfig, split: str, *, metadata: Any = None) -> Any:
    """``config.data.train`` or ``config.data.val``.

    Args:
        config: a composed config.
        split: ``train`` or ``val``.
        metadata: that of the training data, to hold the classes against.

    Raises:
        ConfigError: if there is no such split, or its classes are others.
    """
    node = config.data.get(split)
    if node is None:
        raise ConfigError(f"data.{split} is not set: data={config.data.get('name', '?')} has no such part")
    dataset = instantiate(node)
    if metadata is not None and tuple(dataset.metadata.thing_classes) != tuple(metadata.thing_classes):
        raise ConfigError(
            f"data.{split} has classes {some_names(dataset.metadata.thing_classes)}, "
            f"the model was trained on {some_names(metadata.thing_classes)}"
        )
    return dataset


def some_names(names: Sequence[str]) -> str:
    """Their number and the first few, for messages."""
    shown = ", ".join(names[:5])
    return f"({len(names)}) {shown}{', ...' if len(names) > 5 else ''}"


def build_mapper(
    config: DictConfig, model: nn.Module, *, training: bool, labelled: bool = True
) -> InputMapper:
    """Records to model inputs, with the annotations that the model learns from unless there are none."""
    tasks = tasks_of(model) if labelled else ()
    augment = config.augment.train if training else config.augment.test
    return InputMapper(
        transforms=[instantiate(t) for t in augment.values() if t is not None],
        training=training,
        mask_format="bitmask" if "mask" in tasks else None,
        keypoints="keypoints" in tasks,
        sem_seg=labelled and hasattr(model, "sem_seg_head"),
        channel_order=getattr(model, "input_format", None) or "RGB",
    )


def build_validation_loader(config: DictConfig, model: nn.Module, dataset: Any) -> Any:
    """Every image once, in order, this process's share of them."""
    return build_test_loader(
        dataset,
        build_mapper(config, model, training=False),
        batch_size=config.evaluation.batch_size,
        num_workers=config.num_workers,
        rank=rank(),
        world_size=world_size(),
    )


def build_evaluators(config: DictConfig, model: nn.Module, dataset: Any) -> list[Any]:
    """What fits the model's tasks."""
    settings = config.evaluation
    return [
        CocoEvaluator(
            dataset,
            iou_types=tuple(IOU_TYPES[task] for task in tasks_of(model)),
            backend=settings.backend,
            max_detections=settings.max_detections,
        )
    ]


def plain(config: DictConfig) -> Mapping[str, Any]:
    """The config with every interpolation resolved, as it goes into a checkpoint."""
    return OmegaConf.to_container(config, resolve=True)  # type: ignore[return-value]
