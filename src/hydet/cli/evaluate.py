"""``python -m src.evaluate checkpoint=…``: a checkpoint's metrics on its own or other data."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict
from rich.console import Console

from hydet.config import ConfigError
from hydet.data import Metadata
from hydet.engine import distributed_session, rank
from hydet.evaluation import evaluate as run_evaluation
from hydet.evaluation import results_to_coco_json
from hydet.evaluation.evaluator import Evaluator

from .build import build_dataset, build_evaluators, build_validation_loader
from .command import run_command
from .sweep import METRICS_FILE
from .trained import TrainedModel, load_trained

__all__ = ["evaluate", "main"]


def evaluate(config: DictConfig) -> float | None:
    """Evaluate one checkpoint; returns its box AP."""
    if OmegaConf.is_missing(config, "checkpoint"):
        raise ConfigError("checkpoint is not set: checkpoint=runs/... names a checkpoint or a run's folder")
    with distributed_session(config.device) as device:
        console = Console(quiet=rank() != 0)
        trained = load_trained(config.checkpoint, device=device, allowed=config.allow)
        settings = merged_settings(config, trained)
        dataset = build_dataset(settings, "val", metadata=trained.metadata)
        console.print(f"checkpoint: {trained.checkpoint.path} (step {trained.checkpoint.step})")
        console.print(f"data: {settings.data.get('name', '?')}, {len(dataset)} images")
        evaluators: list[Evaluator] = build_evaluators(settings, trained.model, dataset)
        results = _Results(trained.metadata)
        metrics = run_evaluation(
            trained.model,
            build_validation_loader(settings, trained.model, dataset),
            [*evaluators, results],
            with_losses=settings.evaluation.with_losses,
        )
        for evaluator in evaluators:
            for table in evaluator.tables():
                console.print(table)
        if rank() == 0:
            output_dir = Path(HydraConfig.get().runtime.output_dir)
            file = output_dir / METRICS_FILE
            file.write_text(json.dumps({k: v for k, v in metrics.items() if v == v}, indent=1))
            (output_dir / "results.json").write_text(json.dumps(results.found))
            console.print(f"metrics: {file}\ndetections: {output_dir / 'results.json'}")
        return metrics.get("box/AP")


def merged_settings(config: DictConfig, trained: TrainedModel) -> DictConfig:
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
        for key in ("batch_size", "num_workers"):
            if config.get(key) is not None:
                target = settings.evaluation if key == "batch_size" else settings
                target[key] = config[key]
        settings.evaluation.backend = config.backend or settings.evaluation.backend
    return settings


class _Results:
    """An evaluator that keeps every detection in COCO's results format; this process's share."""

    def __init__(self, metadata: Metadata) -> None:
        self.metadata = metadata
        self.found: list[dict] = []

    def reset(self) -> None:
        self.found = []

    def update(self, inputs: Sequence, outputs: Sequence) -> None:
        self.found += results_to_coco_json(inputs, outputs, self.metadata)

    def compute(self) -> dict[str, float]:
        return {}

    def tables(self) -> list:
        return []


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    return run_command(evaluate, config_name="evaluate", arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
