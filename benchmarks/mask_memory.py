"""Measure the peak memory of evaluating masks on photos of 12 megapixels, in a process of its own.

    python benchmarks/mask_memory.py [--images 1 2] [--detections 100] [--output FILE]

The model is a stand-in that returns 28 x 28 masks and boxes, so the figure is that of pasting, encoding and evaluating.
Pasting and encoding take about 0.2 seconds per detection, so a few photos are enough. Runs on Linux and macOS.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import subprocess
import sys
import time
from pathlib import Path

import torch
from machine import device_name
from torch import Tensor, nn

from hydet.data import Metadata
from hydet.engine.callbacks.evaluation import ExampleCollector
from hydet.evaluation import CocoEvaluator, evaluate
from hydet.structures import Boxes, Instances, ROIMasks

HEIGHT, WIDTH = 3000, 4000


class Photos:
    """Ground truth of one object per image; without records, because the model reads no images."""

    metadata = Metadata(thing_classes=("thing",), thing_ids=(1,))

    def __init__(self, num_images: int) -> None:
        self.num_images = num_images

    def __len__(self) -> int:
        return self.num_images

    def __getitem__(self, index: int, /) -> Tensor:
        raise IndexError(index)

    def to_coco(self) -> dict[str, object]:
        """Return the ground truth."""
        polygon = [[100, 100, 900, 100, 900, 700, 100, 700]]
        annotation = {"category_id": 1, "bbox": [100, 100, 800, 600], "area": 480000, "iscrowd": 0}
        return {
            "images": [{"id": i, "height": HEIGHT, "width": WIDTH} for i in range(self.num_images)],
            "annotations": [
                {**annotation, "id": i + 1, "image_id": i, "segmentation": polygon}
                for i in range(self.num_images)
            ],
            "categories": [{"id": 1, "name": "thing"}],
        }


class StandIn(nn.Module):
    """A model that returns random boxes with full masks."""

    def __init__(self, detections: int) -> None:
        super().__init__()
        self.detections = detections

    def detect_unpasted(self, batched_inputs: list[dict], *, with_losses: bool) -> tuple[dict, list[dict]]:
        """Return one result per image."""
        n = self.detections
        corners = torch.rand(n, 2) * torch.tensor([WIDTH / 2, HEIGHT / 2])
        boxes = torch.cat([corners, corners + torch.tensor([WIDTH / 3, HEIGHT / 3])], dim=1)
        fields = {"scores": torch.rand(n), "pred_classes": torch.zeros(n, dtype=torch.int64)}
        masks = ROIMasks(torch.full((n, 28, 28), 0.9))
        instances = Instances((HEIGHT, WIDTH), pred_boxes=Boxes(boxes), pred_masks=masks, **fields)
        return {}, [{"instances": instances} for _ in batched_inputs]


def measure(num_images: int, detections: int) -> tuple[float, float, float]:
    """Return the peak memory in GB of this process before and after an evaluation, and the seconds it took."""
    torch.manual_seed(0)
    before, started = _peak(), time.monotonic()
    loader = [[{"image_id": i, "height": HEIGHT, "width": WIDTH}] for i in range(num_images)]
    evaluators = [CocoEvaluator(Photos(num_images)), ExampleCollector(8)]
    evaluate(StandIn(detections), loader, evaluators, progress=False)
    return before, _peak(), time.monotonic() - started


def _peak() -> float:
    try:
        import resource  # absent on Windows
    except ImportError:
        raise SystemExit(
            "mask_memory: the peak memory of a process is measured on Linux and macOS only"
        ) from None
    unit = 1e9 if sys.platform == "darwin" else 1e6  # bytes on macOS, kilobytes on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def format_table(rows: list[tuple[int, int, float, float, float]]) -> str:
    """Return the Markdown report of rows of images, detections, two peaks in GB and seconds."""
    lines = [
        "# Peak memory of evaluating masks",
        "",
        f"{datetime.datetime.now(datetime.UTC).date()}, {device_name('cpu')}, {torch.get_num_threads()} threads, "
        f"{platform.system()}, Python {platform.python_version()}, torch {torch.__version__}.",
        f"Photos of {WIDTH} x {HEIGHT}; a stand-in model returns boxes with 28 x 28 masks, which `CocoEvaluator` and the "
        "collector of the example images receive. Each row is a process of its own.",
        "",
        "| photos | detections per photo | peak after import (GB) | peak after evaluation (GB) | seconds |",
        "| --- | --- | --- | --- | --- |",
        *(f"| {i} | {d} | {before:.2f} | {after:.2f} | {s:.0f} |" for i, d, before, after, s in rows),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the table, and write it to a file on request."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--detections", type=int, default=100)
    parser.add_argument("--output", type=Path, help="Markdown file to write")
    parser.add_argument(
        "--measure", action="store_true", help="measure in this process and print the numbers"
    )
    arguments = parser.parse_args()
    if arguments.measure:
        print(*measure(arguments.images[0], arguments.detections))
        return
    rows = []
    for images in arguments.images:
        # The peak of a process never falls, so each measurement has a process of its own. A failure ends the script.
        command = [sys.executable, __file__, "--measure", "--images", str(images)]
        command += ["--detections", str(arguments.detections)]
        numbers = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
        before, after, seconds = map(float, numbers)
        rows.append((images, arguments.detections, before, after, seconds))
    table = format_table(rows)
    print(table)
    if arguments.output:
        arguments.output.write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
