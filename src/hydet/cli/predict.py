"""``python -m src.predict checkpoint=… input=…``: annotated pictures and a COCO-results JSON."""

from __future__ import annotations

import glob
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import track
from torch import nn

from hydet.config import ConfigError
from hydet.data import DataError, InputMapper, Record
from hydet.data.images.reading import read_image
from hydet.engine.atomic_files import write_atomically
from hydet.runs.build import build_mapper, plain
from hydet.runs.open_checkpoint import open_checkpoint
from hydet.runs.result_files import ResultFiles
from hydet.runs.tasks import needs_proposals
from hydet.visualization import draw_predictions, save_png

from .checkpoint_overrides import collect_overrides
from .command import run_command

__all__ = ["find_images", "main", "predict", "predict_files"]

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"}


def predict(config: DictConfig) -> None:
    """Predict every image that ``config.input`` names.

    A file that cannot be read does not stop the others; the command then ends with an error that names it.
    """
    for key in ("checkpoint", "input"):
        if OmegaConf.is_missing(config, key):
            raise ConfigError(f"{key} is not set: checkpoint=runs/... input=<image, folder or glob>")
    if not 0 <= config.score_threshold <= 1:
        raise ConfigError(f"score_threshold must lie in [0, 1], got {config.score_threshold}")
    files = find_images(str(config.input))
    trained = open_checkpoint(
        config.checkpoint, device=config.device, allowed=config.allow, changes=plain(config.changes)
    )
    if needs_proposals(trained.model):
        raise ConfigError("the model takes proposals that come with the data; src.evaluate can give it some")
    output_dir = Path(HydraConfig.get().runtime.output_dir)
    console = Console()
    console.print(f"checkpoint: {trained.checkpoint.path} (step {trained.checkpoint.step})")
    mapper = build_mapper(trained.config, trained.model, training=False, labelled=False)
    pictures = dict(zip(files, picture_names(files), strict=True))

    files_of_results = ResultFiles(output_dir, trained.metadata)
    images: list[dict[str, Any]] = []
    failed: list[str] = []
    predictions = predict_files(trained.model, mapper, files, batch_size=config.batch_size, failed=failed)
    for record, entry, output in track(
        predictions, "predicting", total=len(files), console=console, transient=True
    ):
        picture = draw_predictions(
            record.image, output, trained.metadata, score_threshold=config.score_threshold
        )
        save_png(picture, output_dir / "pictures" / pictures[Path(record.file_name)])
        images.append(
            {
                "id": record.image_id,
                "file_name": record.file_name,
                "height": record.height,
                "width": record.width,
            }
        )
        files_of_results.update([entry], [output])
    files_of_results.compute()
    write_atomically(output_dir / "images.json", json.dumps(images))
    console.print(f"{len(images)} images: {output_dir / 'images.json'}")
    console.print("\n".join(files_of_results.written))
    console.print(f"pictures: {output_dir / 'pictures'}")
    if failed:
        raise DataError("; ".join(failed))


def find_images(pattern: str) -> list[Path]:
    """Image files behind a path: the file itself, those in a folder and below, or those that a glob matches.

    Raises:
        FileNotFoundError: if there is no such file or folder, or nothing matches.
        DataError: if a folder holds no image.
    """
    path = Path(pattern)
    if path.is_file():
        return [path]
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        if not found:
            raise DataError(
                f"input={pattern}: the folder holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})"
            )
        return found
    found = sorted(Path(p) for p in glob.glob(pattern, recursive=True) if Path(p).is_file())
    if not found:
        raise FileNotFoundError(f"input={pattern}: no such file or folder, and no file matches it")
    return found


def picture_names(files: Sequence[Path]) -> list[Path]:
    """Where each file's picture goes, below one folder: the tree is kept, and no two get the same name."""
    root = _common_folder(files)
    names = [f.relative_to(root).with_suffix(".png") for f in files]
    taken = Counter(names)
    return [
        name if taken[name] == 1 else f.relative_to(root).with_name(f"{f.name}.png")
        for f, name in zip(files, names, strict=True)
    ]


def _common_folder(files: Sequence[Path]) -> Path:
    parents = [p.parent for p in files]
    common = parents[0]
    while not all(p == common or common in p.parents for p in parents):
        common = common.parent
    return common


@torch.no_grad()
def predict_files(
    model: nn.Module,
    mapper: InputMapper,
    files: Sequence[Path],
    *,
    batch_size: int = 1,
    failed: list[str] | None = None,
) -> Iterator[tuple[Record, dict[str, Any], dict[str, Any]]]:
    """Record, model input and result of every image.

    Args:
        model: in evaluation mode.
        mapper: makes model inputs.
        files: images; their position becomes ``image_id``, from 1.
        batch_size: images at a time.
        failed: takes a line for each file that cannot be read; without it such a file raises ``DataError``.
    """
    batch: list[tuple[Record, dict[str, Any]]] = []
    for image_id, file in enumerate(files, start=1):
        try:
            image = read_image(file)
        except DataError as error:
            if failed is None:
                raise
            failed.append(str(error))
            continue
        record = unlabelled_record(image, image_id=image_id, file_name=str(file))
        batch.append((record, mapper(record)))
        if len(batch) == batch_size:
            yield from _run(model, batch)
            batch = []
    if batch:
        yield from _run(model, batch)


def _run(
    model: nn.Module, batch: Sequence[tuple[Record, dict[str, Any]]]
) -> Iterator[tuple[Record, dict[str, Any], dict[str, Any]]]:
    outputs = model([entry for _, entry in batch])
    for (record, entry), output in zip(batch, outputs, strict=True):
        yield record, entry, {k: v.to("cpu") if hasattr(v, "to") else v for k, v in output.items()}


def unlabelled_record(image: torch.Tensor, *, image_id: int, file_name: str) -> Record:
    """A ``Record`` of an image of which nothing else is known."""
    return Record(
        image=image,
        image_id=image_id,
        file_name=file_name,
        height=int(image.shape[1]),
        width=int(image.shape[2]),
        boxes=torch.zeros(0, 4),
        classes=torch.zeros(0, dtype=torch.int64),
        iscrowd=torch.zeros(0, dtype=torch.bool),
        annotation_ids=torch.zeros(0, dtype=torch.int64),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    return run_command(predict, config_name="predict", arguments=arguments, prepare=collect_overrides)


if __name__ == "__main__":
    sys.exit(main())
