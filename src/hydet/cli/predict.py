"""``python -m src.predict checkpoint=… input=…``: draw and store the predictions for images."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig
from rich.progress import track

from hydet.config import ConfigError
from hydet.data import DataError
from hydet.data.datasets.coco_format import CocoImage
from hydet.engine.terminal import OutputConsole
from hydet.files import WriteError, write_atomically
from hydet.runs.build import plain
from hydet.runs.config_values import PREDICT_VALUES, check_values
from hydet.runs.detector import load
from hydet.runs.image_files import find_images
from hydet.runs.result_files import ResultFiles
from hydet.runs.results import DEFAULT_RATE
from hydet.runs.sources.videos import is_video_file

from .checkpoint_overrides import collect_overrides
from .command import run_command
from .drawings import DrawnImages, DrawnVideo
from .printing import print_lines

__all__ = ["main", "predict"]

_NAMED_FAILURES = 5  # files that the last line names


def predict(config: DictConfig, output_dir: Path) -> None:
    """Run a detector on every image that ``config.input`` names, or on every frame of a video.

    The results of each image are written before the next one begins. A file that cannot be read does not stop the
    others; the command then ends with an error that names it.

    Args:
        config: see ``conf/predict.yaml``.
        output_dir: folder for drawn images, or the drawn video, and results.
    """
    check_values(config, PREDICT_VALUES, required=["checkpoint", "input"])
    is_video = is_video_file(str(config.input))
    save_video = is_video if config.save_video is None else config.save_video
    if not is_video and (save_video or config.track):
        raise ConfigError("save_video and track need a video as input")
    files = find_images(str(config.input))
    detector = load(
        config.checkpoint,
        device=config.device,
        inference=config.inference,
        compile=config.compile,
        allow=config.allow,
        verify=config.verify,
        value_range=config.value_range,
        max_pixels=config.max_pixels,
        **plain(config.changes),
    )
    console = OutputConsole()
    print_lines(console, f"checkpoint: {detector.origin}")
    results = detector.predict(
        str(config.input) if is_video else files,
        batch_size=config.batch_size,
        tile=config.tile,
        overlap=config.overlap,
        tta=None if config.get("tta") is None else plain(config.tta),
        track=config.track,
        on_failure="skip",
    )
    drawn: DrawnVideo | DrawnImages
    if save_video:
        drawn = DrawnVideo(output_dir / f"{files[0].stem}.mp4", rate=results.rate or DEFAULT_RATE)
    else:
        drawn = DrawnImages(output_dir / "pictures", [] if is_video else files)
    result_files = ResultFiles(output_dir, detector.metadata, journal=True)
    images: list[CocoImage] = []
    try:
        with detector.naming_faults(), drawn:
            for result in track(results, "predicting", total=results.count, console=console, transient=True):
                drawn.add(result, result.draw(score_threshold=config.score_threshold))
                result_files.update([result.entry], [result.output])
                images.append(
                    {
                        "id": result.index + 1,
                        "file_name": result.name,
                        "height": result.height,
                        "width": result.width,
                    }
                )
    except (
        BaseException
    ) as error:  # also Ctrl-C; if the process is killed, results.jsonl has the results so far
        if images:
            _write_after(error, result_files, images, output_dir)
        raise
    _write(result_files, images, output_dir)
    print_lines(console, f"{len(images)} images: {output_dir / 'images.json'}", *result_files.written)
    print_lines(console, drawn.describe())
    if results.failed:
        raise DataError(_describe_failed(results.failed, None if is_video else len(files), output_dir))


def _write_after(
    error: BaseException, results: ResultFiles, images: Sequence[CocoImage], output_dir: Path
) -> None:
    """Write the results of all images before an error, which stays the one that is reported."""
    try:
        _write(results, images, output_dir)
    except WriteError:
        if not isinstance(error, WriteError):
            raise
        consequence = f"the results of {len(images)} images are in {output_dir / 'results.jsonl'}"
    else:
        consequence = f"the results of {len(images)} images are in {output_dir}"
    if isinstance(error, WriteError):
        error.consequences.append(consequence)


def _write(results: ResultFiles, images: Sequence[CocoImage], output_dir: Path) -> None:
    """Write the results of all images so far."""
    write_atomically(output_dir / "images.json", json.dumps(images))
    results.compute()  # removes results.jsonl, so it comes last


def _describe_failed(failed: Sequence[str], num_files: int | None, output_dir: Path) -> str:
    """Return one line about the files that could not be read; write all of them if the line cannot name them all."""
    line = "; ".join(failed[:_NAMED_FAILURES])
    if len(failed) > _NAMED_FAILURES:
        path = output_dir / "unreadable.txt"
        write_atomically(path, "\n".join(failed) + "\n")
        line += f"; and {len(failed) - _NAMED_FAILURES} more, all listed in {path}"
    what = f"{len(failed)} frames" if num_files is None else f"{len(failed)} of {num_files} files"
    return f"{what} cannot be read, the others are done: {line}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(predict, config_name="predict", arguments=arguments, prepare=collect_overrides)


if __name__ == "__main__":
    sys.exit(main())
