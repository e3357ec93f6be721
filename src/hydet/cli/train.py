"""``python -m src.train``: train a model, evaluate it, and print where the results are."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.markup import escape

from hydet.data.datasets.report import DataReport
from hydet.distributed import broadcast_from_main, distributed_session, is_main_process
from hydet.evaluation.ground_truth_notes import describe_ground_truth, merged_report
from hydet.runs.starting_weights import OF_RECIPE, describe_random_parts, recipe_weights
from hydet.runs.tasks import traits_of
from hydet.runs.training_run import TrainingRun, build_training_run

from .command import run_command
from .default_model import compose_fitting_model
from .metrics_file import read_metrics, write_metrics

__all__ = ["main", "train"]


def train(config: DictConfig, output_dir: Path) -> float | None:
    """Train one model.

    Args:
        config: see ``conf/train.yaml``.
        output_dir: folder for checkpoints, logs and images.

    Returns:
        The metric ``evaluation.metric``, which a sweep maximizes, or None without an evaluation.
    """
    started = time.monotonic()
    if config.init_from == OF_RECIPE:
        config.init_from = recipe_weights(_chosen_experiment())
    device_name = OmegaConf.select(config, "trainer.device") or "auto"
    advice = "resume=auto with the same output_dir continues from the last checkpoint"
    with distributed_session(device_name, timeout=config.distributed_timeout, advice=advice) as device:
        # Every process composes its own config, and only that of the main process names the folder of the run.
        run = build_training_run(
            config,
            output_dir=Path(broadcast_from_main(str(output_dir))),
            device=device,
            fitting_model=compose_fitting_model,
        )
        _print_start(run)
        known = dict(run.train_loader.dataset.report().counts)
        run.trainer.fit(resume=config.resume, verify=config.verify)
        # Every process takes part in merging reports, since each of them reads its own share of the images.
        added = merged_report(run.train_loader.dataset.report()).added_since(known)
        validation = run.datasets.get("val")
        notes = [] if validation is None else describe_ground_truth(merged_report(validation.report()))
        if is_main_process():
            seconds, trainer = time.monotonic() - started, run.trainer
            if config.resume:  # the time of the run that this one continues
                seconds += float(read_metrics(trainer.output_dir).get("seconds", 0.0))
            write_metrics(
                trainer.output_dir,
                trainer.metrics,
                main_metric=run.metric,
                notes=notes if trainer.metrics else (),  # without an evaluation they are about no number
                seconds=seconds,
                step=trainer.step,
            )
            _print_end(run, added=added, seconds=seconds)
        return run.trainer.metrics.get(run.metric)


def _print_start(run: TrainingRun) -> None:
    trainer, config = run.trainer, run.config
    num_trainable = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    tasks = ", ".join(traits_of(trainer.model).tasks)
    trainer.print(
        f"[bold]{type(trainer.model).__name__}[/bold] ({tasks}), {num_trainable / 1e6:.1f} M trainable parameters"
    )
    if run.replaced_default is not None:
        trainer.print(escape(f"this model replaces the default: {run.replaced_default}"))
    description = OmegaConf.select(config, "preset.description")
    if description:
        trainer.print(escape(f"preset {config.preset.name}: {description}"))
    sizes = ", ".join(f"{len(dataset)} {split} images" for split, dataset in run.datasets.items())
    trainer.print(escape(f"data: {config.data.get('name', '?')}, {sizes}, {config.num_classes} classes"))
    for split, dataset in run.datasets.items():
        report = str(dataset.report())
        if report:
            trainer.print(escape(f"{split}: {report}"))
    if run.scaled_lr is not None:
        trainer.print(
            f"learning rate: {config.optimizer.lr:g} for 16 images, so {run.scaled_lr:g} for {run.images_per_step}"
        )
    trainer.print(f"{config.trainer.max_steps} steps of {run.images_per_step} images")
    if run.warmup_steps is not None and run.warmup_steps[0] < run.warmup_steps[1]:
        trainer.print(
            f"warm-up: {run.warmup_steps[0]} steps instead of {run.warmup_steps[1]}, since the run is short "
            f"(schedule.max_warmup_fraction={config.schedule.max_warmup_fraction:g})"
        )
    if config.init_from is None and not config.resume:
        line = describe_random_parts(config, trainer.model, _chosen_experiment())
        if line is not None:
            trainer.print(f"[yellow]{escape(line)}[/yellow]")
    trainer.print(escape(f"writing to {trainer.output_dir}"))
    if run.initialization is not None:
        trainer.print(escape(str(run.initialization)))


def _chosen_experiment() -> str | None:
    choice = HydraConfig.get().runtime.choices.get("experiment")
    return None if choice is None else str(choice)


def _print_end(run: TrainingRun, *, added: DataReport, seconds: float) -> None:
    trainer = run.trainer
    if added:
        trainer.print(escape(f"found in training images while they were read: {added}"))
    if run.train_loader.replaced:
        trainer.print(
            f"{run.train_loader.replaced} times an image that could not be read was replaced by another one"
        )
    for name in ("best", "last"):
        folder = trainer.output_dir / "checkpoints" / name
        if folder.exists():
            trainer.print(escape(f"{name} checkpoint: {folder}"))
    images = sorted((trainer.output_dir / "pictures").glob("*.png"), key=lambda path: path.stat().st_mtime)
    if images:
        trainer.print(escape(f"pictures: {images[-1]}"))
    trainer.print(f"done in {seconds / 60:.1f} minutes")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(train, config_name="train", arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
