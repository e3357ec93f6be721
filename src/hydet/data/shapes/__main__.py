"""Write the generated dataset as COCO files: ``python -m hydet.data.shapes --out FOLDER --num-images 1000``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial

from rich.console import Console
from rich.progress import Progress, TaskID

from hydet.data.coco.writer import write_coco
from hydet.data.shapes.dataset import SHAPE_CLASSES, ShapesDataset


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = _parse_arguments(arguments)
    console = Console()
    splits = {"train": (options.num_images, options.seed), "val": (options.val_images, options.seed + 1)}
    overrides = []
    for split, (count, seed) in splits.items():
        if count <= 0:
            continue
        try:
            dataset = ShapesDataset(
                num_images=count,
                seed=seed,
                image_size=options.image_size,
                max_image_size=options.max_image_size,
                class_names=options.class_names,
                cache=True,
            )
            with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
                task = bar.add_task(f"writing {split}", total=count)
                paths = write_coco(
                    dataset,
                    options.out,
                    split=split,
                    progress=partial(_show_progress, bar, task),
                )
        except (ValueError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        console.print(f"{split}: {count} images, {paths['instances']}", highlight=False, soft_wrap=True)
        overrides.append(f"data.{split}.json={paths['instances']} data.{split}.images={paths['images']}")
    console.print(
        f"to train on this data: python -m src.train data=coco_instance data.class_names=null {' '.join(overrides)}",
        highlight=False,
        soft_wrap=True,
    )
    return 0


def _parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m hydet.data.shapes", description=__doc__)
    parser.add_argument("--out", required=True, help="output folder")
    parser.add_argument(
        "--num-images", type=int, default=1000, help="size of the training split (default: 1000)"
    )
    parser.add_argument(
        "--val-images", type=int, default=200, help="size of the validation split (default: 200)"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="seed of the training split; validation uses the next one (default: 0)",
    )
    parser.add_argument(
        "--image-size",
        type=int,
        nargs=2,
        default=(128, 128),
        metavar=("H", "W"),
        help="height and width (default: 128 128)",
    )
    parser.add_argument(
        "--max-image-size", type=int, nargs=2, metavar=("H", "W"), help="sizes vary from --image-size to this"
    )
    parser.add_argument("--class-names", nargs="+", choices=SHAPE_CLASSES, default=SHAPE_CLASSES)
    return parser.parse_args(arguments)


def _show_progress(bar: Progress, task: TaskID, num_written: int) -> None:
    bar.update(task, completed=num_written)


if __name__ == "__main__":
    sys.exit(main())
