"""``python -m src.evaluate checkpoint=…``: print the metrics of a checkpoint on its own or other data."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from hydet.distributed import broadcast_from_main, distributed_session, is_main_process
from hydet.engine.terminal import OutputConsole
from hydet.runs.build import plain
from hydet.runs.evaluation_run import check_evaluation, evaluate_detector
from hydet.runs.open_weights import open_detector

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
    check_evaluation(config)
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
        result = evaluate_detector(
            detector, config, output_dir=output_dir, announce=lambda line: print_lines(console, line)
        )
        if is_main_process():  # before anything is printed, which can fail
            file = write_metrics(
                output_dir, result.metrics, main_metric=result.main_metric, notes=result.notes
            )
        for table in result.tables:
            console.print(table)
        print_lines(console, *result.notes)
        if is_main_process():
            print_lines(console, f"metrics: {file}", *result.written)
        return result.metrics.get(result.main_metric)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(evaluate, config_name="evaluate", arguments=arguments, prepare=collect_overrides)


if __name__ == "__main__":
    sys.exit(main())
