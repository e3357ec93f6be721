"""``python -m src.evaluate checkpoint=…``: a checkpoint's metrics on its own or other data."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict
from rich.console import Console
from torch import nn

from hydet.config import ConfigError
from hydet.engine import distributed_session, rank
from hydet.evaluation import evaluate as run_evaluation
from hydet.evaluation.evaluator import Evaluator
from hydet.modeling import DatasetMapperTTA, make_tta
from hydet.runs.build import build_dataset, build_evaluators, build_mapper, build_validation_loader, plain
from hydet.runs.open_checkpoint import LoadedDetector, open_checkpoint
from hydet.runs.result_files import ResultFiles
from hydet.runs.tasks import needs_proposals, primary_metric

from .checkpoint_overrides import collect_overrides
from .command import run_command
from .sweep import METRICS_FILE

__all__ = ["evaluate", "main"]

LONGEST_SIDE = 5  # times the shorter one: 4000 for 800, as published


def evaluate(config: DictConfig) -> float | None:
    """Evaluate one checkpoint; returns the metric that counts for its model, such as box AP."""
    if OmegaConf.is_missing(config, "checkpoint"):
        raise ConfigError("checkpoint is not set: checkpoint=runs/... names a checkpoint or a run's folder")
    if config.split not in ("train", "val"):
        raise ConfigError(f"split must be train or val, got {config.split!r}")
    with distributed_session(config.device) as device:
        console = Console(quiet=rank() != 0)
        trained = open_checkpoint(
            config.checkpoint, device=device, allowed=config.allow, changes=plain(config.changes)
        )
        settings = merged_settings(config, trained)
        if needs_proposals(trained.model) and settings.proposals[config.split] is None:
            raise ConfigError(
                f"the model takes proposals that come with the data: proposals.{config.split}=FILE"
            )
        dataset = build_dataset(settings, config.split, metadata=trained.metadata)
        console.print(f"checkpoint: {trained.checkpoint.path} (step {trained.checkpoint.step})")
        console.print(f"data: {settings.data.get('name', '?')}, {config.split}, {len(dataset)} images")
        model: Any = trained.model
        if config.get("tta") is not None:
            model = with_tta(config.tta, settings, trained.model, dataset)
            mapper = model.tta_mapper
            mirrored = ", each also mirrored" if mapper.flip else ""
            console.print(f"test-time augmentation: shorter side {list(mapper.min_sizes)}{mirrored}")
        output_dir = Path(HydraConfig.get().runtime.output_dir)
        files = ResultFiles(output_dir, trained.metadata)
        evaluators: list[Evaluator] = build_evaluators(settings, model, dataset)
        metrics = run_evaluation(
            model,
            build_validation_loader(settings, trained.model, dataset, augment=config.get("tta") is None),
            [*evaluators, files],
            with_losses=settings.evaluation.with_losses,
        )
        metric = primary_metric(model)
        for evaluator in evaluators:
            for table in evaluator.tables():
                console.print(table)
        if rank() == 0:
            file = output_dir / METRICS_FILE
            known = {k: v for k, v in metrics.items() if v == v}  # JSON has no NaN
            file.write_text(json.dumps({**known, "metric": metric}, indent=1))
            console.print("\n".join([f"metrics: {file}", *files.written]))
        return metrics.get(metric)


def merged_settings(config: DictConfig, trained: LoadedDetector) -> DictConfig:
    """The checkpoint's config with what this command line replaces in it."""
    settings = trained.config.copy()
    OmegaConf.set_struct(settings, False)
    with open_dict(settings):
        if config.get("data") is not None:
            settings.data = OmegaConf.create(OmegaConf.to_container(config.data, resolve=True))
            if settings.data.get("class_names", 0) is None:
                settings.data.class_names = list(trained.metadata.thing_classes)
                for split in ("train", "val"):
                    if settings.data.get(split) is not None:
                        settings.data[split].class_names = list(trained.metadata.thing_classes)
        if config.get("evaluators") is not None:
            settings.evaluators = config.evaluators
        for split in ("train", "val"):
            if config.proposals[split] is not None:
                settings.proposals[split] = config.proposals[split]
        for key in ("batch_size", "num_workers"):
            if config.get(key) is not None:
                target = settings.evaluation if key == "batch_size" else settings
                target[key] = config[key]
        settings.evaluation.backend = config.backend or settings.evaluation.backend
    return settings


def with_tta(tta: DictConfig, settings: DictConfig, model: nn.Module, dataset: Any) -> Any:
    """The model with test-time augmentation.

    Args:
        tta: see ``conf/tta/default.yaml``.
        settings: those of the checkpoint; tell the size that pictures are tested at.
        model: in evaluation mode.
        dataset: its first picture tells that size where the settings do not.
    """
    side = OmegaConf.select(settings, "augment.test.resize.short")
    if not isinstance(side, int):
        image = build_mapper(settings, model, training=False, labelled=False)(dataset[0])["image"]
        side = min(image.shape[1:])
    sizes = tta.min_sizes if tta.min_sizes is not None else [round(scale * side) for scale in tta.scales]
    return make_tta(
        model=model,
        tta_mapper=DatasetMapperTTA(
            min_sizes=list(sizes), max_size=tta.max_size or LONGEST_SIDE * side, flip=tta.flip
        ),
        batch_size=tta.batch_size,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    return run_command(evaluate, config_name="evaluate", arguments=arguments, prepare=collect_overrides)


if __name__ == "__main__":
    sys.exit(main())
