"""From a composed config to the objects of a run, in the order in which they need one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict
from torch import nn

from hydet.config import ConfigError, TargetCheck, instantiate
from hydet.data import InputMapper, Metadata, WithProposals, build_evaluation_loader
from hydet.engine import rank, world_size

from .tasks import IOU_TYPES, MEASURED_BY, needs_proposals, tasks_of

__all__ = [
    "build_dataset",
    "build_evaluators",
    "build_mapper",
    "build_model",
    "build_validation_loader",
    "check_fits",
    "fill_names",
    "plain",
    "some_names",
]


def fill_names(config: DictConfig, metadata: Metadata) -> None:
    """Where ``data`` has null for names of classes, keypoints or stuff, take those of the training data.

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
        if data.get("stuff_names", ()) is None:
            data.stuff_names = list(metadata.stuff_classes)
    if config.num_classes != metadata.num_classes:
        raise ConfigError(
            f"num_classes is {config.num_classes}, but data.train has classes {some_names(metadata.thing_classes)}"
        )


def build_model(config: DictConfig, *, allowed: TargetCheck | None = None) -> nn.Module:
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


def check_fits(config: DictConfig, model: nn.Module, metadata: Metadata) -> None:
    """See that the data have what the model is to learn: keypoints, semantic labels, proposals.

    Raises:
        ConfigError: if they have not; says what would do.
    """
    tasks = tasks_of(model)
    if "keypoints" in tasks and config.num_keypoints != metadata.num_keypoints:
        if not metadata.num_keypoints:
            raise ConfigError("the model predicts keypoints, but data.train has none")
        raise ConfigError(
            f"data.keypoint_names has {config.num_keypoints} names, data.train has keypoints "
            f"{some_names(metadata.keypoint_names)}; data.keypoint_names=null takes those"
        )
    stuff = len(metadata.stuff_classes)
    if "semantic" in tasks and config.num_stuff_classes != stuff:
        if not stuff:
            raise ConfigError("the model predicts semantic labels, but data.train has none")
        raise ConfigError(
            f"data.stuff_names has {config.num_stuff_classes} names, data.train has semantic labels "
            f"{some_names(metadata.stuff_classes)}; data.stuff_names=null takes those"
        )
    if needs_proposals(model) and config.proposals.train is None:
        raise ConfigError(
            "the model takes proposals that come with the data: proposals.train=FILE proposals.val=FILE "
            "(src.evaluate writes them for a checkpoint of model=rpn_fpn)"
        )


def build_dataset(config: DictConfig, split: str, *, metadata: Any = None) -> Any:
    """``config.data.train`` or ``config.data.val``, with the proposals that ``config.proposals`` has for it.

    Args:
        config: a composed config.
        split: ``train`` or ``val``.
        metadata: that of the training data, to hold the names against.

    Raises:
        ConfigError: if there is no such split, or its classes are others.
    """
    node = config.data.get(split)
    if node is None:
        raise ConfigError(f"data.{split} is not set: data={config.data.get('name', '?')} has no such part")
    dataset = instantiate(node)
    for names in ("thing_classes", "stuff_classes"):
        own, trained_on = getattr(dataset.metadata, names), getattr(metadata, names, ())
        if trained_on and tuple(own) != tuple(trained_on) and (own or names == "thing_classes"):
            raise ConfigError(
                f"data.{split} has classes {some_names(own)}, the model was trained on {some_names(trained_on)}"
            )
    proposals = OmegaConf.select(config, f"proposals.{split}")
    return dataset if proposals is None else WithProposals(dataset=dataset, proposals=proposals)


def some_names(names: Sequence[str]) -> str:
    """Their number and the first few, for messages."""
    shown = ", ".join(names[:5])
    return f"({len(names)}) {shown}{', ...' if len(names) > 5 else ''}"


def build_mapper(
    config: DictConfig,
    model: nn.Module,
    *,
    training: bool,
    labelled: bool = True,
    augment: bool = True,
) -> InputMapper:
    """Records to model inputs, with the annotations that the model learns from.

    Args:
        config: a composed config.
        model: says what it predicts and in which order it wants channels.
        training: whether for training.
        labelled: False for pictures without annotations.
        augment: False leaves pictures as they are, for test-time augmentation.
    """
    tasks = set(tasks_of(model) if labelled else ())
    steps = config.augment.train if training else config.augment.test
    return InputMapper(
        transforms=[instantiate(t) for t in steps.values() if t is not None] if augment else [],
        training=training,
        # Panoptic segmentation is learned from both, also by a model that predicts nothing else.
        mask_format="bitmask" if tasks & {"mask", "panoptic"} else None,
        keypoints="keypoints" in tasks,
        rotated=bool(tasks & {"rotated", "rotated_proposals"}),
        sem_seg=bool(tasks & {"semantic", "panoptic"}),
        max_proposals=config.proposals.topk[0 if training else 1] if needs_proposals(model) else None,
        channel_order=getattr(model, "input_format", None) or "RGB",
    )


def build_validation_loader(config: DictConfig, model: nn.Module, dataset: Any, **mapping: Any) -> Any:
    """Every image once, in order, this process's share of them.

    Args:
        config: a composed config.
        model: see ``build_mapper``.
        dataset: gives records.
        **mapping: further arguments of ``build_mapper``.
    """
    return build_evaluation_loader(
        dataset,
        build_mapper(config, model, training=False, **mapping),
        batch_size=config.evaluation.batch_size,
        num_workers=config.num_workers,
        rank=rank(),
        world_size=world_size(),
    )


def build_evaluators(config: DictConfig, model: nn.Module, dataset: Any) -> list[Any]:
    """Those of ``config.evaluators`` that fit what the model predicts, and all that have names of their own."""
    tasks = tasks_of(model)
    wanted = {MEASURED_BY[task] for task in tasks if task in MEASURED_BY}
    found = []
    for name, node in config.evaluators.items():
        if node is None or (name in MEASURED_BY.values() and name not in wanted):
            continue
        more = {}
        if name == "instances":
            more["iou_types"] = [IOU_TYPES[task] for task in tasks if task in IOU_TYPES]
        found.append(instantiate(node)(dataset, **more))
    return found


def plain(config: DictConfig) -> Mapping[str, Any]:
    """The config with every interpolation resolved, as it goes into a checkpoint."""
    return OmegaConf.to_container(config, resolve=True)  # type: ignore[return-value]
