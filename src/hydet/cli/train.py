"""``python -m src.train``: compose, train, evaluate, and say where everything is."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.markup import escape

from hydet.config import ConfigError, instantiate
from hydet.data import Metadata, build_train_loader
from hydet.distributed import broadcast_from_main
from hydet.engine import (
    Trainer,
    distributed_session,
    find_last_checkpoint,
    init_from,
    load_checkpoint,
    rank,
    scale_lr,
    seed_everything,
    world_size,
)
from hydet.engine.callbacks import Evaluation
from hydet.runs.build import (
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
from hydet.runs.tasks import primary_metric, tasks_of

from .command import run_command
from .sweep import METRICS_FILE

__all__ = ["build_trainer", "main", "train"]


def train(config: DictConfig) -> float | None:
    """One training run.

    Returns:
        The number that a sweeper maximises, ``evaluation.metric``, if there was an evaluation.
    """
    started = time.monotonic()
    with distributed_session(config.trainer.device) as device:
        output_dir = Path(broadcast_from_main(HydraConfig.get().runtime.output_dir))
        trainer = build_trainer(config, output_dir=output_dir, device=device)
        trainer.fit(resume=config.resume)
        if rank() == 0:
            _finish(trainer, config.evaluation.metric, seconds=time.monotonic() - started)
        return trainer.metrics.get(config.evaluation.metric)


def build_trainer(
    config: DictConfig, *, output_dir: str | Path, device: str | torch.device = "auto"
) -> Trainer:
    """Everything a run needs, from a composed config.

    Args:
        config: see ``conf/train.yaml``.
        output_dir: where checkpoints, logs and pictures go.
        device: see ``hydet.engine.select_device``.
    """
    seed_everything(config.seed)
    datasets = {"train": build_dataset(config, "train")}
    metadata: Metadata = datasets["train"].metadata
    fill_names(config, metadata)
    _check_resume(config.resume, Path(output_dir), metadata)
    if config.data.get("val") is not None:
        datasets["val"] = build_dataset(config, "val", metadata=metadata)
    model = build_model(config)
    check_fits(config, model, metadata)
    if config.evaluation.metric is None:
        config.evaluation.metric = primary_metric(model)
    if config.batch_size % world_size():
        raise ConfigError(f"batch_size={config.batch_size} is not divisible by the {world_size()} processes")

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
    callbacks = [instantiate(c) for c in config.callbacks.values() if c is not None]
    callbacks += [instantiate(c) for c in config.logger.values() if c is not None]
    if "val" in datasets:
        callbacks.append(
            Evaluation(
                every=config.evaluation.every,
                loader=build_validation_loader(config, model, datasets["val"]),
                evaluators=build_evaluators(config, model, datasets["val"]),
                with_losses=config.evaluation.with_losses,
                pictures=config.evaluation.pictures,
            )
        )
    optimizer = instantiate(config.optimizer)
    stated = config.optimizer.lr
    if stated is not None:
        images = config.batch_size * config.trainer.accumulate
        optimizer = partial(optimizer, lr=scale_lr(stated, images))
    trainer = Trainer(
        model=model,
        train_loader=loader,
        optimizer=optimizer,
        scheduler=None if config.schedule is None else instantiate(config.schedule),
        groups=instantiate(config.parameter_groups),
        output_dir=output_dir,
        callbacks=callbacks,
        config=plain(config),
        metadata=metadata,
        seed=config.seed,
        **{**OmegaConf.to_container(config.trainer, resolve=True), "device": device},  # type: ignore[dict-item]
    )
    _introduce(trainer, config, datasets)
    if config.init_from is not None:
        trainer.print(escape(str(init_from(model, config.init_from, allow_mismatch=True))))
    return trainer


def _check_resume(resume: bool | str, output_dir: Path, metadata: Metadata) -> None:
    """Refuse a checkpoint of other classes before anything is built."""
    if not resume:
        return
    path = find_last_checkpoint(output_dir) if resume is True or resume == "auto" else resume
    theirs = load_checkpoint(path).class_names if path is not None else None
    if theirs is not None and theirs != metadata.thing_classes:
        raise ConfigError(
            f"cannot resume from {path}: it was trained on classes {some_names(theirs)}, data.train has "
            f"{some_names(metadata.thing_classes)}; init_from takes weights only"
        )


def _introduce(trainer: Trainer, config: DictConfig, datasets: dict[str, Any]) -> None:
    model = trainer.model
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    images = config.batch_size * config.trainer.accumulate
    sizes = ", ".join(f"{len(d)} {split} images" for split, d in datasets.items())
    trainer.print(
        f"[bold]{type(model).__name__}[/bold] ({', '.join(tasks_of(model))}), {parameters / 1e6:.1f} M trainable parameters"
    )
    trainer.print(f"data: {config.data.get('name', '?')}, {sizes}, {config.num_classes} classes")
    for split, dataset in datasets.items():
        report = getattr(dataset, "report", None)
        text = str(report()) if callable(report) else ""
        if text:
            trainer.print(escape(f"{split}: {text}"))
    rate = config.optimizer.lr
    if rate is not None:
        trainer.print(f"learning rate: {rate:g} for 16 images, so {scale_lr(rate, images):g} for {images}")
    trainer.print(f"{config.trainer.max_steps} steps of {images} images")
    if "FrozenBN" in str(config.norm) and config.init_from is None and not config.resume:
        trainer.print(
            "[yellow]norm=FrozenBN without init_from: normalisation and frozen stages keep random weights. "
            "Give init_from=WEIGHTS, or train from scratch with norm=BN freeze_at=0.[/yellow]"
        )
    trainer.print(escape(f"writing to {trainer.output_dir}"))


def _finish(trainer: Trainer, metric: str, *, seconds: float) -> None:
    metrics = {k: v for k, v in trainer.metrics.items() if v == v}  # JSON has no NaN
    file = trainer.output_dir / METRICS_FILE
    content = {**metrics, "metric": metric, "seconds": seconds, "step": trainer.step}
    file.write_text(json.dumps(content, indent=1))
    replaced = getattr(trainer.train_loader, "replaced", 0)
    if replaced:
        trainer.print(f"{replaced} times an image could not be read and another one took its place")
    for name in ("best", "last"):
        folder = trainer.output_dir / "checkpoints" / name
        if folder.exists():
            trainer.print(escape(f"{name} checkpoint: {folder}"))
    pictures = sorted((trainer.output_dir / "pictures").glob("*.png"), key=lambda p: p.stat().st_mtime)
    if pictures:
        trainer.print(escape(f"pictures: {pictures[-1]}"))
    trainer.print(f"done in {seconds / 60:.1f} minutes")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    return run_command(train, config_name="train", arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
