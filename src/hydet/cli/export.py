"""``python -m src.export checkpoint=… format=…``: write a trained model for another runtime, and check the file."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from hydet.engine.terminal import OutputConsole
from hydet.export import METADATA_FILE
from hydet.runs.build import plain
from hydet.runs.config_values import EXPORT_VALUES, check_values
from hydet.runs.export_run import export_detector
from hydet.runs.open_checkpoint import faults_of
from hydet.runs.open_weights import open_detector

from .checkpoint_overrides import collect_overrides
from .command import run_command
from .printing import print_lines

__all__ = ["export", "main"]


def export(config: DictConfig, output_dir: Path) -> None:
    """Export a checkpoint.

    Args:
        config: see ``conf/export.yaml``.
        output_dir: folder of the file and of ``metadata.json``.
    """
    check_values(config, EXPORT_VALUES, required=["checkpoint", "format"])
    detector = open_detector(
        config.checkpoint,
        device=config.device,
        allowed=config.allow,
        changes=plain(config.changes),
        verify=config.verify,
    )
    console = OutputConsole()
    print_lines(console, f"checkpoint: {detector.origin}")
    suffix = ".onnx" if config.format == "onnx" else ".pt2"
    path = output_dir / f"model{suffix}"
    sizes = None if config.sizes is None else [(int(h), int(w)) for h, w in config.sizes]
    with faults_of(detector.checkpoint):
        description = export_detector(
            detector,
            path,
            format=config.format,
            precision=config.precision,
            sizes=sizes,
            images=config.images,
        )
    for file in description.files:
        size = "images of any size" if file.size is None else f"images up to {file.size[0]} x {file.size[1]}"
        megabytes = (output_dir / file.name).stat().st_size / 1e6
        print_lines(console, f"{output_dir / file.name}: {config.format}, {megabytes:.1f} MB, {size}")
    print_lines(
        console, f"names, sizes and thresholds: {output_dir / METADATA_FILE}", _describe(description.check)
    )
    if description.needs_hydet:
        print_lines(
            console, f"a process that runs it imports hydet first, for {', '.join(description.needs_hydet)}"
        )


def _describe(check: Mapping[str, Any]) -> str:
    """Return one line about the comparison with the model."""
    parts = []
    if check["detections"]:
        parts += [
            f"{check['detections']} detections",
            f"boxes within {check['box_difference_pixels']:.1e} pixels",
            f"scores within {check['score_difference']:.1e}",
        ]
    if check["labels"]:
        parts.append(f"{1 - check['labels_differing']:.3%} of the semantic labels")
    if not parts:
        return "compared with the model on images without detections, which says little; images=FOLDER selects others"
    return f"equal to the model: {', '.join(parts)}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(export, config_name="export", arguments=arguments, prepare=collect_overrides)


if __name__ == "__main__":
    sys.exit(main())
