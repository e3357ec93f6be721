"""Evaluate a trained model: combine its stored settings with those of the user, run it over a dataset, compute metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

from omegaconf import DictConfig, OmegaConf, open_dict
from rich.console import RenderableType
from torch import nn

from hydet.config import ConfigError, literal_config, to_plain
from hydet.data import DetectionDataset, Metadata
from hydet.evaluation import evaluate as compute_metrics
from hydet.evaluation.ground_truth_notes import describe_ground_truth, merged_report

from .build import (
    build_dataset,
    build_evaluators,
    build_mapper,
    build_validation_loader,
    check_class_names,
)
from .config_values import EVALUATE_VALUES, check_values
from .label_check import require_labels
from .open_checkpoint import LoadedDetector, faults_of
from .result_files import ResultFiles
from .tasks import primary_metric, traits_of
from .tiling import add_tiling
from .tta import add_tta, check_tile_and_tta

__all__ = [
    "Evaluation",
    "check_evaluation",
    "evaluate_detector",
    "evaluation_settings",
    "result_metadata",
]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Metrics of a model on a dataset.

    Attributes:
        metrics: value of each metric by name, such as ``"box/AP"``.
        main_metric: name of the metric by which models are compared.
        tables: tables of the evaluators, for the terminal.
        notes: lines about ground truth that was left out or changed.
        written: lines about files of results, set on the main process.
    """

    metrics: dict[str, float]
    main_metric: str
    tables: Sequence[RenderableType]
    notes: Sequence[str]
    written: Sequence[str] = ()


def check_evaluation(config: DictConfig) -> None:
    """Check the values of an evaluate command.

    Raises:
        ConfigError: if a value has the wrong type, or two exclude each other.
    """
    # Evaluators refer to settings of the checkpoint, so they cannot be resolved yet.
    own_keys = [str(key) for key in config if key != "evaluators"]
    check_values(OmegaConf.masked_copy(config, own_keys), EVALUATE_VALUES, required=["checkpoint"])
    check_tile_and_tta(config.tile, config.get("tta"))


def evaluate_detector(
    detector: LoadedDetector,
    config: DictConfig,
    *,
    dataset: DetectionDataset | None = None,
    output_dir: Path | None = None,
    announce: Callable[[str], None] = lambda line: None,
    progress: bool = True,
) -> Evaluation:
    """Evaluate a trained model, on all processes of a session together.

    Args:
        detector: the model.
        config: see ``conf/evaluate.yaml``; its model, device and forms of inference are those of ``detector`` already.
        dataset: data to evaluate on; by default those that ``config`` names, or else the validation data of the run.
        output_dir: folder for files of results; None writes none.
        announce: receives lines about the model, the data and the augmentation before the model runs.
        progress: show a progress bar.

    Raises:
        ConfigError: if the data do not fit the model.
    """
    settings = evaluation_settings(config, detector)
    if dataset is None and settings.data is None:
        raise ConfigError(f"{detector.origin} has no data of its own: name them, such as data=coco_instance")
    if dataset is None:
        # Data that the user names are the user's own; everything else was built by the checkpoint's config.
        with faults_of(detector.checkpoint) if config.get("data") is None else nullcontext():
            dataset = build_dataset(settings, config.split, metadata=detector.metadata)
        name = str(settings.data.get("name", "?"))
    else:
        check_class_names(dataset.metadata, detector.metadata, config.split)
        name = dataset.metadata.name or type(dataset).__name__
    if traits_of(detector.model).needs_proposals and not dataset.has_proposals:
        raise ConfigError(f"the model needs proposals that come with the data: proposals.{config.split}=FILE")
    require_labels(detector.model, dataset, config.split)
    announce(f"checkpoint: {detector.origin}")
    announce(f"data: {name}, {config.split}, {len(dataset)} images")
    with faults_of(detector.checkpoint):
        model = _augmented(detector.model, config, settings, dataset, announce)
        evaluators = build_evaluators(settings, model, dataset)
        loader = build_validation_loader(settings, detector.model, dataset, augment=model is detector.model)
        metadata = result_metadata(dataset.metadata, detector.metadata)
        files = [] if output_dir is None else [ResultFiles(output_dir, metadata, file_ids=dataset.file_ids)]
        metrics = compute_metrics(
            model,
            loader,
            [*evaluators, *files],
            with_losses=settings.evaluation.with_losses and not config.compile,
            progress=progress,
        )
    return Evaluation(
        metrics,
        primary_metric(model),
        [table for evaluator in evaluators for table in evaluator.tables()],
        describe_ground_truth(merged_report(dataset.report())),
        [line for file in files for line in file.written],
    )


def _augmented(
    model: nn.Module,
    config: DictConfig,
    settings: DictConfig,
    dataset: DetectionDataset,
    announce: Callable[[str], None],
) -> nn.Module:
    """Return the model that the evaluation runs: wrapped in test-time augmentation or tiling, or as it is."""
    if config.get("tta") is None and config.tile is None:
        return model
    mapper = build_mapper(settings, model, training=False, labeled=False)
    if config.get("tta") is not None:
        with_tta, tta_mapper = add_tta(
            config.tta, model, mapper, dataset.metadata, first_record=lambda: dataset[0]
        )
        mirrored = ", each also mirrored" if tta_mapper.flip else ""
        announce(f"test-time augmentation: shorter side {list(tta_mapper.min_sizes)}{mirrored}")
        return with_tta
    tiled, _ = add_tiling(
        model,
        mapper,
        tile=config.tile,
        overlap=config.overlap,
        batch_size=settings.evaluation.batch_size,
    )
    announce(f"tiles: {config.tile} pixels, overlap {config.overlap:g}")
    return tiled


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
