"""``python -m src.evaluate checkpoint=…``: print the metrics of a checkpoint on its own or other data."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from torch import nn

from hydet.config import ConfigError
from hydet.distributed import broadcast_from_main, distributed_session, is_main_process
from hydet.engine.terminal import OutputConsole
from hydet.evaluation import evaluate as run_evaluation
from hydet.evaluation.ground_truth_notes import describe_ground_truth, merged_report
from hydet.runs.build import (
    build_dataset,
    build_evaluators,
    build_mapper,
    build_validation_loader,
    plain,
)
from hydet.runs.config_values import EVALUATE_VALUES, check_values
from hydet.runs.evaluation_run import add_tta, evaluation_settings, result_metadata
from hydet.runs.label_check import require_labels
from hydet.runs.open_checkpoint import faults_of
from hydet.runs.open_weights import open_detector
from hydet.runs.result_files import ResultFiles
from hydet.runs.tasks import primary_metric, traits_of
from hydet.runs.tiling import add_tiling

from .checkpoint_overrides import collect_overrides
from .command import run_command
from .metrics_file import write_metrics
from .printing import print_lines

__all__ = ["evaluate", "main"]


def evaluate(config: DictConfig, output_dir: Path) -> float | None:
    """Evaluate one checkpoint.

    Args:
        config: see ``conf/evaluate.yaml``.
        output_dir: folder for metrics and results.

    Returns:
        The main metric of the model, such as box AP.
    """
    # Evaluators refer to settings of the checkpoint, so they cannot be resolved yet.
    own_keys = [str(key) for key in config if key != "evaluators"]
    check_values(OmegaConf.masked_copy(config, own_keys), EVALUATE_VALUES, required=["checkpoint"])
    if config.tile is not None and config.get("tta") is not None:
        raise ConfigError("tile and tta exclude each other: tiles have their original resolution")
    with distributed_session(config.device, timeout=config.distributed_timeout) as device:
        # Every process composes its own config, and only that of the main process names the folder of the run.
        output_dir = Path(broadcast_from_main(str(output_dir)))
        console = OutputConsole(quiet=not is_main_process())
        detector = open_detector(
            config.checkpoint,
            device=device,
            allowed=config.allow,
            changes=plain(config.changes),
            verify=config.verify,
            inference=config.inference,
            compile=config.compile,
        )
        settings = evaluation_settings(config, detector)
        # Data that the command line names are the user's own; everything else was built by the checkpoint's config.
        with faults_of(detector.checkpoint) if config.get("data") is None else nullcontext():
            dataset = build_dataset(settings, config.split, metadata=detector.metadata)
        if traits_of(detector.model).needs_proposals and not dataset.has_proposals:
            raise ConfigError(
                f"the model needs proposals that come with the data: proposals.{config.split}=FILE"
            )
        require_labels(detector.model, dataset, config.split)
        print_lines(
            console,
            f"checkpoint: {detector.origin}",
            f"data: {settings.data.get('name', '?')}, {config.split}, {len(dataset)} images",
        )
        with faults_of(detector.checkpoint):
            model: nn.Module = detector.model
            if config.get("tta") is not None:
                model, mapper = add_tta(config.tta, settings, detector.model, dataset)
                mirrored = ", each also mirrored" if mapper.flip else ""
                print_lines(
                    console, f"test-time augmentation: shorter side {list(mapper.min_sizes)}{mirrored}"
                )
            if config.tile is not None:
                model, _ = add_tiling(
                    detector.model,
                    build_mapper(settings, detector.model, training=False, labeled=False),
                    tile=config.tile,
                    overlap=config.overlap,
                    batch_size=settings.evaluation.batch_size,
                )
                print_lines(console, f"tiles: {config.tile} pixels, overlap {config.overlap:g}")
            files = ResultFiles(
                output_dir,
                result_metadata(dataset.metadata, detector.metadata),
                file_ids=dataset.file_ids,
            )
            evaluators = build_evaluators(settings, model, dataset)
            loader = build_validation_loader(
                settings,
                detector.model,
                dataset,
                augment=config.get("tta") is None and config.tile is None,
            )
            metrics = run_evaluation(
                model,
                loader,
                [*evaluators, files],
                with_losses=settings.evaluation.with_losses and not config.compile,
            )
        metric = primary_metric(model)
        notes = describe_ground_truth(merged_report(dataset.report()))
        if is_main_process():  # before anything is printed, which can fail
            file = write_metrics(output_dir, metrics, main_metric=metric, notes=notes)
        for evaluator in evaluators:
            for table in evaluator.tables():
                console.print(table)
        print_lines(console, *notes)
        if is_main_process():
            print_lines(console, f"metrics: {file}", *files.written)
        return metrics.get(metric)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(evaluate, config_name="evaluate", arguments=arguments, prepare=collect_overrides)


if __name__ == "__main__":
    sys.exit(main())
