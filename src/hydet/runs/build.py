"""Build the parts of a run from a composed config: datasets, model, mapper, loaders and evaluators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from torch import nn

from hydet.config import ConfigError, TargetCheck, instantiate, literal_config
from hydet.data import (
    DetectionDataset,
    EvaluationLoader,
    InputMapper,
    Metadata,
    WithProposals,
    as_detection_dataset,
    build_evaluation_loader,
)
from hydet.data.mapping.transforming import Transform
from hydet.distributed import rank, world_size
from hydet.evaluation import Evaluator
from hydet.modeling import MetaArchitecture

from .tasks import EVALUATOR_OF_TASK, IOU_TYPES, traits_of

__all__ = [
    "build_dataset",
    "build_evaluators",
    "build_mapper",
    "build_model",
    "build_validation_loader",
    "check_class_names",
    "check_fits",
    "fill_names",
    "plain",
    "some_names",
]

_OWN_PACKAGES = ("hydet", "torch", "torchvision")


def fill_names(config: DictConfig, metadata: Metadata) -> None:
    """Set the names of classes, keypoints and stuff that are null in ``data`` to those of the training data.

    Keypoints belong to classes: if the classes are null, the keypoints of the data replace those of the config too.

    Raises:
        ConfigError: if ``num_classes`` differs from the number of classes in the data.
    """
    data = config.data
    with open_dict(data):
        fill_classes = data.get("class_names", ()) is None
        if fill_classes:
            data.class_names = _literal_list(metadata.thing_classes)
        if (fill_classes and metadata.num_keypoints > 0) or data.get("keypoint_names", ()) is None:
            data.keypoint_names = _literal_list(metadata.keypoint_names)
        if data.get("stuff_names", ()) is None:
            data.stuff_names = _literal_list(metadata.stuff_classes)
    if config.num_classes != metadata.num_classes:
        raise ConfigError(
            f"num_classes is {config.num_classes}, but data.train has classes {some_names(metadata.thing_classes)}"
        )


def _literal_list(names: Sequence[str]) -> ListConfig:
    """Return names of which none is an interpolation, such as a class with the name ``"${price}"``."""
    names_config: ListConfig = literal_config({"names": list(names)}).names
    return names_config


def build_model(config: DictConfig, *, allowed: TargetCheck | None = None) -> nn.Module:
    """Build the model that ``config.model`` describes.

    Args:
        config: a composed config, or a config that was stored with a checkpoint.
        allowed: see ``hydet.instantiate``.

    Raises:
        ConfigError: if the config builds something other than a model.
    """
    model = instantiate(config.model, allowed=allowed)
    # A user's model may be any module; of the modules of hydet and torch, only meta-architectures take model inputs.
    is_part = type(model).__module__.split(".")[0] in _OWN_PACKAGES and not isinstance(
        model, MetaArchitecture
    )
    if not isinstance(model, nn.Module) or is_part:
        raise ConfigError(
            f"model: {config.model.get('_target_')} is a {type(model).__name__}, not a detector"
        )
    return model


def check_fits(config: DictConfig, model: nn.Module, dataset: DetectionDataset) -> None:
    """Check that the training data have the labels and proposals that the model needs.

    Raises:
        ConfigError: if labels are missing or differ in number; the message names the remedy.
    """
    traits, metadata = traits_of(model), dataset.metadata
    if "keypoints" in traits.tasks and config.num_keypoints != metadata.num_keypoints:
        if not metadata.num_keypoints:
            raise ConfigError("the model predicts keypoints, but data.train has none")
        raise ConfigError(
            f"data.keypoint_names has {config.num_keypoints} names, but data.train has keypoints "
            f"{some_names(metadata.keypoint_names)}; data.keypoint_names=null selects those"
        )
    num_stuff = len(metadata.stuff_classes)
    if "semantic" in traits.tasks and config.num_stuff_classes != num_stuff:
        if not num_stuff:
            raise ConfigError("the model predicts semantic labels, but data.train has none")
        raise ConfigError(
            f"data.stuff_names has {config.num_stuff_classes} names, but data.train has semantic labels "
            f"{some_names(metadata.stuff_classes)}; data.stuff_names=null selects those"
        )
    if traits.needs_proposals and not dataset.has_proposals:
        raise ConfigError(
            "the model needs proposals that come with the data: proposals.train=FILE proposals.val=FILE "
            "(src.evaluate writes them for a checkpoint of model=rpn_fpn)"
        )


def build_dataset(config: DictConfig, split: str, *, metadata: Metadata | None = None) -> DetectionDataset:
    """Build ``config.data.train`` or ``config.data.val``, with the proposals of ``config.proposals`` if it has any.

    Args:
        config: a composed config.
        split: ``"train"`` or ``"val"``.
        metadata: metadata of the training data, whose classes the data must have.

    Raises:
        ConfigError: if the config has no such split, or the classes differ.
    """
    node = config.data.get(split)
    if node is None:
        raise ConfigError(f"data.{split} is not set: data={config.data.get('name', '?')} has no such split")
    if not isinstance(node, DictConfig):
        raise ConfigError(f"data.{split} must be a section with _target_, got {node!r}")
    dataset = as_detection_dataset(instantiate(node))
    if metadata is not None:
        check_class_names(dataset.metadata, metadata, split)
    proposals = OmegaConf.select(config, f"proposals.{split}")
    return dataset if proposals is None else WithProposals(dataset=dataset, proposals=proposals)


def check_class_names(evaluated: Metadata, trained: Metadata, split: str) -> None:
    """Check that data have the classes of a trained model.

    Args:
        evaluated: metadata of the data.
        trained: metadata of the training data.
        split: name of the data, for the message.

    Raises:
        ConfigError: if the classes differ.
    """
    _check_classes(evaluated.thing_classes, trained.thing_classes, split)
    # Stuff matters only to models that predict it, so data without stuff are fine.
    if evaluated.stuff_classes:
        _check_classes(evaluated.stuff_classes, trained.stuff_classes, split)


def _check_classes(names: Sequence[str], trained_on: Sequence[str], split: str) -> None:
    if trained_on and tuple(names) != tuple(trained_on):
        raise ConfigError(
            f"data.{split} has classes {some_names(names)}, the model was trained on {some_names(trained_on)}"
        )


def some_names(names: Sequence[str]) -> str:
    """Return the number of names and the first five, for messages."""
    shown = ", ".join(names[:5])
    return f"({len(names)}) {shown}{', ...' if len(names) > 5 else ''}"


def build_mapper(
    config: DictConfig,
    model: nn.Module,
    *,
    training: bool,
    labeled: bool = True,
    augment: bool = True,
) -> InputMapper:
    """Build the mapper from records to model inputs, with the annotations that the model learns from.

    Args:
        config: a composed config.
        model: its tasks select the annotations, and its input format the channel order.
        training: True for training, False for evaluation and prediction.
        labeled: False for images without annotations.
        augment: False leaves out the transforms, for test-time augmentation.

    Raises:
        ConfigError: if an entry of the transforms does not build one; names the key.
    """
    traits = traits_of(model)
    tasks = set(traits.tasks if labeled else ())
    split = "train" if training else "test"
    steps = config.augment[split] if augment else {}
    return InputMapper(
        transforms=[
            _build_transform(step, f"augment.{split}.{name}")
            for name, step in steps.items()
            if step is not None
        ],
        training=training,
        # Panoptic segmentation is learned from masks and semantic labels, also by models that predict neither alone.
        mask_format="bitmask" if tasks & {"mask", "panoptic"} else None,
        keypoints="keypoints" in tasks,
        rotated=bool(tasks & {"rotated", "rotated_proposals"}),
        sem_seg=bool(tasks & {"semantic", "panoptic"}),
        max_proposals=config.proposals.topk[0 if training else 1] if traits.needs_proposals else None,
        channel_order=cast(Literal["RGB", "BGR"], traits.input_format),  # the mapper checks it
    )


def _build_transform(node: object, key: str) -> Transform:
    transform = instantiate(node)
    if not callable(transform):
        # Such as a size that a command sets for a run whose images keep their sizes.
        raise ConfigError(f"{key} must be a section with _target_, got {node}")
    return cast("Transform", transform)


def build_validation_loader(
    config: DictConfig, model: nn.Module, dataset: DetectionDataset, *, augment: bool = True
) -> EvaluationLoader:
    """Build a loader that reads this process's share of the images once, in order.

    Args:
        config: a composed config.
        model: see ``build_mapper``.
        dataset: the records.
        augment: see ``build_mapper``.
    """
    return build_evaluation_loader(
        dataset,
        build_mapper(config, model, training=False, augment=augment),
        batch_size=config.evaluation.batch_size,
        num_workers=config.num_workers,
        rank=rank(),
        world_size=world_size(),
    )


def build_evaluators(config: DictConfig, model: nn.Module, dataset: DetectionDataset) -> list[Evaluator]:
    """Build the evaluators of ``config.evaluators``: those that fit the model's tasks, and all with names of their own.

    Raises:
        ConfigError: if an entry does not build an evaluator; names the key.
    """
    tasks = traits_of(model).tasks
    by_tasks = {EVALUATOR_OF_TASK[task] for task in tasks if task in EVALUATOR_OF_TASK}
    evaluators: list[Evaluator] = []
    for name, node in config.evaluators.items():
        if node is None or (name in EVALUATOR_OF_TASK.values() and name not in by_tasks):
            continue
        if not isinstance(node, DictConfig):
            raise ConfigError(f"evaluators.{name} must be a section with _target_, got {node!r}")
        options: dict[str, object] = {}
        if name == "instances":
            options["iou_types"] = [IOU_TYPES[task] for task in tasks if task in IOU_TYPES]
        make = instantiate(node)
        if not callable(make):
            raise ConfigError(f"evaluators.{name} must build an evaluator with _partial_: true, got {make!r}")
        evaluator = make(dataset, **options)
        if not isinstance(evaluator, Evaluator):
            raise ConfigError(f"evaluators.{name} is a {type(evaluator).__name__}, not an evaluator")
        evaluators.append(evaluator)
    return evaluators


def plain(config: DictConfig) -> dict[str, Any]:
    """Return the config as plain containers with every interpolation resolved, as checkpoints store it."""
    return cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
