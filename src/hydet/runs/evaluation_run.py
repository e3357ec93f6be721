"""Combine the settings that a checkpoint stores with those of the evaluate command, and add test-time augmentation."""

from __future__ import annotations

import dataclasses

from omegaconf import DictConfig, OmegaConf, open_dict
from torch import nn

from hydet.config import ConfigError, literal_config, to_plain
from hydet.data import DetectionDataset, Metadata
from hydet.modeling import DatasetMapperTTA, make_tta
from hydet.modeling.protocols import Detector

from .build import build_mapper
from .open_checkpoint import LoadedDetector

__all__ = ["add_tta", "evaluation_settings", "result_metadata"]

# Upper bound of the longer side, in multiples of the shorter one: 4000 for 800, as in the published configurations.
LONGER_SIDE_LIMIT = 5


def evaluation_settings(config: DictConfig, detector: LoadedDetector) -> DictConfig:
    """Return the config of a checkpoint, updated with the data, evaluators and numbers of the command line.

    Args:
        config: see ``conf/evaluate.yaml``; null keeps the setting of the checkpoint.
        detector: an open checkpoint.
    """
    settings = detector.config.copy()
    OmegaConf.set_struct(settings, False)
    with open_dict(settings):
        if config.get("data") is not None:
            settings.data = literal_config(to_plain(config.data)[0])
            _fill_class_names(settings.data, detector)
        for split in ("train", "val"):
            if config.proposals[split] is not None:
                settings.proposals[split] = config.proposals[split]
        if config.batch_size is not None:
            settings.evaluation.batch_size = config.batch_size
        if config.num_workers is not None:
            settings.num_workers = config.num_workers
        if config.backend is not None:
            settings.evaluation.backend = config.backend
        if config.get("evaluators") is not None:
            # These refer to `evaluation`, which holds checked values only, so they can be resolved against it.
            settings.evaluators = config.evaluators
            settings.evaluators = literal_config(to_plain(settings.evaluators)[0])
    return settings


def result_metadata(evaluated: Metadata, trained: Metadata) -> Metadata:
    """Return the metadata for files of results: with the category ids of the evaluated data, not of the training data.

    Data without stuff can evaluate a model that predicts it; its labels then keep the ids of the training data.
    """
    if evaluated.stuff_classes or not trained.stuff_classes:
        return evaluated
    return dataclasses.replace(evaluated, stuff_classes=trained.stuff_classes, stuff_ids=trained.stuff_ids)


def _fill_class_names(data: DictConfig, detector: LoadedDetector) -> None:
    """Replace class names that are null by those of the checkpoint."""
    if data.get("class_names", ()) is not None:
        return
    names = list(detector.metadata.thing_classes)
    data.class_names = names
    for split in ("train", "val"):
        if data.get(split) is not None:
            data[split].class_names = names


def add_tta(
    tta: DictConfig, settings: DictConfig, model: nn.Module, dataset: DetectionDataset
) -> tuple[nn.Module, DatasetMapperTTA]:
    """Wrap a model in test-time augmentation.

    Args:
        tta: see ``conf/tta/default.yaml``.
        settings: settings of the evaluation; ``augment.test`` holds the size of test images.
        model: a detector in evaluation mode.
        dataset: its first image determines the size where the settings do not.

    Returns:
        The wrapped model, and the mapper that makes the augmented images.

    Raises:
        ConfigError: if the model is not a detector of hydet.
    """
    if not isinstance(model, Detector):
        raise ConfigError(f"tta: {type(model).__name__} does not implement hydet.modeling.Detector")
    side = OmegaConf.select(settings, "augment.test.resize.short")
    if not isinstance(side, int):
        image = build_mapper(settings, model, training=False, labeled=False)(dataset[0])["image"]
        side = min(image.shape[1:])
    sizes = tta.min_sizes if tta.min_sizes is not None else [round(scale * side) for scale in tta.scales]
    mapper = DatasetMapperTTA(
        min_sizes=list(sizes), max_size=tta.max_size or LONGER_SIDE_LIMIT * side, flip=tta.flip
    )
    metadata = dataset.metadata
    wrapped = make_tta(
        model=model,
        tta_mapper=mapper,
        batch_size=tta.batch_size,
        keypoint_flip_indices=metadata.keypoint_flip_indices if metadata.mirrors_keypoints else None,
    )
    return wrapped, mapper
