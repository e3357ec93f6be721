"""``python -m src.predict checkpoint=… input=…``: draw and store the predictions for images."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape
from rich.progress import track

from hydet.config import ConfigError
from hydet.data import DataError
from hydet.engine.atomic_writes import write_atomically
from hydet.runs.build import build_mapper, plain
from hydet.runs.config_values import PREDICT_VALUES, check_values
from hydet.runs.image_files import drawing_names, find_images
from hydet.runs.open_checkpoint import faults_of, open_checkpoint
from hydet.runs.prediction import predict_files
from hydet.runs.result_files import ResultFiles
from hydet.runs.tasks import traits_of
from hydet.visualization import draw_predictions, save_png

from .checkpoint_overrides import collect_overrides
from .command import run_command

__all__ = ["main", "predict"]


def predict(config: DictConfig, output_dir: Path) -> None:
    """Run a detector on every image that ``config.input`` names.

    A file that cannot be read does not stop the others; the command then ends with an error that names it.

    Args:
        config: see ``conf/predict.yaml``.
        output_dir: folder for drawn images and results.
    """
    check_values(config, PREDICT_VALUES, required=["checkpoint", "input"])
    files = find_images(str(config.input))
    detector = open_checkpoint(
        config.checkpoint, device=config.device, allowed=config.allow, changes=plain(config.changes)
    )
    if traits_of(detector.model).needs_proposals:
        raise ConfigError("the model needs proposals that come with the data; src.evaluate can read them")
    console = Console()
    console.print(escape(f"checkpoint: {detector.checkpoint.path} (step {detector.checkpoint.step})"))
    drawings = dict(zip(files, drawing_names(files), strict=True))

    results = ResultFiles(output_dir, detector.metadata)
    images: list[dict[str, int | str]] = []
    failed: list[str] = []
    with faults_of(detector.checkpoint):
        mapper = build_mapper(detector.config, detector.model, training=False, labeled=False)
        predictions = predict_files(
            detector.model, mapper, files, batch_size=config.batch_size, failed=failed
        )
        for prediction in track(predictions, "predicting", total=len(files), console=console, transient=True):
            record = prediction.record
            drawing = draw_predictions(
                record.image, prediction.output, detector.metadata, score_threshold=config.score_threshold
            )
            save_png(drawing, output_dir / "pictures" / drawings[Path(record.file_name)])
            images.append(
                {
                    "id": record.image_id,
                    "file_name": record.file_name,
                    "height": record.height,
                    "width": record.width,
                }
            )
            results.update([prediction.model_input], [prediction.output])
    results.compute()
    write_atomically(output_dir / "images.json", json.dumps(images))
    console.print(escape(f"{len(images)} images: {output_dir / 'images.json'}"))
    console.print(escape("\n".join(results.written)))
    console.print(escape(f"pictures: {output_dir / 'pictures'}"))
    if failed:
        raise DataError("; ".join(failed))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(predict, config_name="predict", arguments=arguments, prepare=collect_overrides)


if __name__ == "__main__":
    sys.exit(main())
