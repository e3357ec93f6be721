"""Build a training run from a composed config."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.optim import Optimizer

from hydet.config import ConfigError, instantiate
from hydet.data import DetectionDataset, Metadata, TrainLoader, build_train_loader
from hydet.distributed import rank, world_size
from hydet.engine import (
    Callback,
    Checkpoint,
    LoadReport,
    Trainer,
    init_from,
    scale_lr,
    seed_everything,
)
from hydet.engine.callbacks import Evaluation
from hydet.engine.checkpoint_search import find_checkpoint_to_resume
from hydet.engine.schedules import limit_warmup
from hydet.modeling import compile_training, optimize_training

from .build import (
    build_dataset,
    build_evaluators,
    build_mapper,
    build_model,
    build_validation_loader,
    check_fits,
    fill_names,
    plain,
    some_names,
)
from .config_values import TRAIN_VALUES, check_values
from .label_check import MissingLabelsError, require_labels
from .starting_weights import known_class_names
from .tasks import primary_metric

__all__ = ["TrainingRun", "build_training_run"]


@dataclass(frozen=True)
class TrainingRun:
    """A trainer and the parts that commands describe and read.

    Attributes:
        trainer: ready for ``fit``.
        config: the config of the run; names of classes and the metric are filled in.
        datasets: datasets by split: ``train`` and, if the config has one, ``val``.
        train_loader: loader of the trainer.
        metric: metric that selects the best checkpoint and that a sweep maximizes.
        initialization: report of the weights that ``init_from`` loaded, or None.
        replaced_default: the reason if another model replaced the default one, or None.
    """

    trainer: Trainer
    config: DictConfig
    datasets: dict[str, DetectionDataset]
    train_loader: TrainLoader
    metric: str
    initialization: LoadReport | None
    replaced_default: str | None = None

    @property
    def images_per_step(self) -> int:
        """Number of images of one optimizer step, over all processes."""
        return _images_per_step(self.config)

    @property
    def scaled_lr(self) -> float | None:
        """Learning rate for ``images_per_step``, or None if the optimizer has no ``lr``."""
        return _scaled_lr(self.config)

    @property
    def warmup_steps(self) -> tuple[int, int | float] | None:
        """Length of the warm-up in steps, and ``schedule.warmup_steps``; None if the schedule has no such key."""
        schedule = self.config.get("schedule")
        if schedule is None or schedule.get("warmup_steps") is None:
            return None
        steps = limit_warmup(
            schedule.warmup_steps,
            max_warmup_fraction=schedule.get("max_warmup_fraction", 1.0),
            max_steps=schedule.get("max_steps"),
        )
        return steps, schedule.warmup_steps


def build_training_run(
    config: DictConfig,
    *,
    output_dir: str | Path,
    device: str | torch.device = "auto",
    fitting_model: Callable[[], DictConfig | None] | None = None,
) -> TrainingRun:
    """Build everything that a training run needs.

    Args:
        config: see ``conf/train.yaml``; class names and the metric that are null are filled in.
        output_dir: folder for checkpoints, logs and images.
        device: see ``hydet.engine.select_device``.
        fitting_model: returns the section ``model`` for data without masks, or None if the user chose a model that
            needs them. By default, such data are an error.

    Raises:
        ConfigError: if a value has the wrong type, or the parts do not fit together; names the key.
    """
    check_values(config, TRAIN_VALUES)
    if config.batch_size % world_size():
        raise ConfigError(f"batch_size={config.batch_size} is not divisible by the {world_size()} processes")
    seed_everything(config.seed)
    datasets = {"train": build_dataset(config, "train")}
    metadata = datasets["train"].metadata
    fill_names(config, metadata)
    checkpoint = _find_resumed(config, Path(output_dir), metadata)
    if config.data.get("val") is not None:
        datasets["val"] = build_dataset(config, "val", metadata=metadata)
    model, replaced_default = _build_fitting_model(config, datasets, fitting_model)
    if config.get("training") == "fast":  # configs of older checkpoints lack the key
        optimize_training(model)
    if config.evaluation.metric is None:
        config.evaluation.metric = primary_metric(model)

    loader = build_train_loader(
        datasets["train"],
        build_mapper(config, model, training=True),
        batch_size=config.batch_size // world_size(),
        num_workers=config.num_workers,
        seed=config.seed,
        rank=rank(),
        world_size=world_size(),
        sampler=instantiate(config.sampler)(dataset=datasets["train"], seed=config.seed),
    )
    trainer = Trainer(
        model=model,
        train_loader=loader,
        optimizer=_build_optimizer(config),
        scheduler=None if config.get("schedule") is None else instantiate(config.schedule),
        groups=instantiate(config.parameter_groups),
        output_dir=output_dir,
        callbacks=_build_callbacks(config, model, datasets.get("val")),
        config=plain(config),
        metadata=metadata,
        seed=config.seed,
        **{**_trainer_options(config), "device": device},
    )
    if config.get("compile"):
        compile_training(model)
    initialization = None
    if config.init_from is not None and checkpoint is None:  # a resumed run has the weights of its checkpoint
        initialization = init_from(
            model,
            config.init_from,
            allow_mismatch=True,
            class_names=metadata.thing_classes,
            file_class_names=known_class_names(config.init_from),
            verify=config.verify,
        )
    return TrainingRun(
        trainer, config, datasets, loader, config.evaluation.metric, initialization, replaced_default
    )


def _build_fitting_model(
    config: DictConfig,
    datasets: Mapping[str, DetectionDataset],
    fitting_model: Callable[[], DictConfig | None] | None,
) -> tuple[nn.Module, str | None]:
    """Build the model, or another one if the data lack masks; set ``config.model`` and return the reason.

    Raises:
        ConfigError: if the data lack labels that the model needs.
    """
    model, reason = build_model(config), None
    try:
        for split, dataset in datasets.items():
            require_labels(model, dataset, split)
    except MissingLabelsError as error:
        other = fitting_model() if fitting_model is not None and error.labels == {"masks"} else None
        if other is None:
            raise
        config.model = other
        seed_everything(config.seed)  # the same weights as if the command line had named this model
        model, reason = build_model(config), str(error)
        for split, dataset in datasets.items():
            require_labels(model, dataset, split)
    check_fits(config, model, datasets["train"])
    return model, reason


def _trainer_options(config: DictConfig) -> dict[str, Any]:
    options = OmegaConf.to_container(config.trainer, resolve=True)
    assert isinstance(options, dict)  # check_values
    return {str(key): value for key, value in options.items()}


def _build_callbacks(config: DictConfig, model: nn.Module, val: DetectionDataset | None) -> list[Callback]:
    # `~logger` and `~callbacks` on the command line remove the whole group.
    nodes = [*(config.get("callbacks") or {}).values(), *(config.get("logger") or {}).values()]
    callbacks: list[Callback] = [instantiate(node) for node in nodes if node is not None]
    if val is not None:
        callbacks.append(
            Evaluation(
                every=config.evaluation.every,
                loader=build_validation_loader(config, model, val),
                evaluators=build_evaluators(config, model, val),
                with_losses=config.evaluation.with_losses,
                num_examples=config.evaluation.pictures,
            )
        )
    return callbacks


def _build_optimizer(config: DictConfig) -> Callable[..., Optimizer]:
    """Return the optimizer factory, with the learning rate scaled from a batch of 16 to the images of one step."""
    optimizer: Callable[..., Optimizer] = instantiate(config.optimizer)
    lr = _scaled_lr(config)
    return optimizer if lr is None else partial(optimizer, lr=lr)


def _images_per_step(config: DictConfig) -> int:
    return int(config.batch_size * config.trainer.accumulate)


def _scaled_lr(config: DictConfig) -> float | None:
    lr = config.optimizer.get("lr")
    return None if lr is None else scale_lr(lr, _images_per_step(config))


def _find_resumed(config: DictConfig, output_dir: Path, metadata: Metadata) -> Checkpoint | None:
    """Return the checkpoint from which the run continues; None for a new run.

    Raises:
        ConfigError: if the checkpoint has other classes, or started from other weights than ``init_from``.
    """
    # The trainer reads the files and compares their hashes; here only the names count.
    checkpoint = find_checkpoint_to_resume(config.resume, output_dir, verify=False)
    if checkpoint is None:
        return None
    class_names = checkpoint.class_names
    if class_names is not None and class_names != metadata.thing_classes:
        raise ConfigError(
            f"cannot resume from {checkpoint.path}: it was trained on classes {some_names(class_names)}, data.train has "
            f"{some_names(metadata.thing_classes)}; init_from takes only the weights"
        )
    try:
        started_from = checkpoint.config.get("init_from", config.init_from)
    except ValueError:  # a damaged config, about which the trainer warns
        return checkpoint
    if config.init_from is not None and not _is_same_path(config.init_from, started_from):
        raise ConfigError(
            f"init_from={config.init_from} cannot apply: the run continues with the weights of {checkpoint.path}, which "
            f"started from init_from={'null' if started_from is None else started_from}; leave init_from out, or "
            "start a new run with resume=false and another output_dir"
        )
    return checkpoint


def _is_same_path(a: str | int, b: str | int | None) -> bool:
    return b is not None and (str(a) == str(b) or Path(str(a)).resolve() == Path(str(b)).resolve())
