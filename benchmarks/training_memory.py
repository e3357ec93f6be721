"""Measure the peak memory of a training step on the CPU, with many ground-truth objects in one image.

    python benchmarks/training_memory.py [--models mask_rcnn_fpn fcos] [--objects 8 2000] [--training exact fast]
    python benchmarks/training_memory.py --output benchmarks/results/training_memory_2026-11-28.md

Each measurement has a process of its own: forward and backward pass of one float32 image, models of ``conf/model/`` with
80 classes. The figure is the peak memory of the process minus its memory just before the step, so it includes activations,
targets and gradients of the weights, but not the weights. Masks are polygons, as in training. Runs on Linux.
"""

from __future__ import annotations

import argparse
import datetime
import math
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
from machine import device_name
from torch import Tensor

import hydet
from hydet.modeling.optimization import optimize_training
from hydet.structures import Boxes, Instances, Keypoints, PolygonMasks, RotatedBoxes

LIMIT = 1.5  # GB
NUM_CLASSES = 80
POINTS = 24  # per polygon
NUM_KEYPOINTS = 17
NUM_STUFF = 54
MODELS = (
    "mask_rcnn_fpn", "faster_rcnn_fpn", "cascade_mask_rcnn_fpn", "keypoint_rcnn_fpn", "panoptic_fpn", "retinanet", "fcos",
    "rotated_faster_rcnn_fpn",
)  # fmt: skip


def make_entry(count: int, size: tuple[int, int], name: str) -> dict:
    """Make a random image for a model, with objects of 8 to 160 pixels, most of them small."""
    random = torch.Generator().manual_seed(0)
    room = torch.tensor([size[1], size[0]], dtype=torch.float32)
    sides = 8 + 152 * torch.rand(count, 2, generator=random) ** 3
    corner = torch.rand(count, 2, generator=random) * (room - sides)
    boxes = torch.cat([corner, corner + sides], dim=1)
    classes = torch.randint(NUM_CLASSES, (count,), generator=random)
    instances = Instances(size, gt_boxes=Boxes(boxes), gt_classes=classes)
    if "rotated" in name:
        angles = torch.rand(count, 1, generator=random) * 360 - 180
        instances.gt_boxes = RotatedBoxes(torch.cat([corner + sides / 2, sides, angles], dim=1))
    else:
        instances.gt_masks = PolygonMasks(list(map(ellipse, boxes)))
    if "keypoint" in name:
        points = corner[:, None] + sides[:, None] * torch.rand(count, NUM_KEYPOINTS, 2, generator=random)
        visible = torch.full((count, NUM_KEYPOINTS, 1), 2.0)
        instances.gt_keypoints = Keypoints(torch.cat([points, visible], dim=2))
    image = torch.randint(0, 256, (3, *size), generator=random, dtype=torch.uint8)
    entry = {"image": image, "instances": instances, "image_id": 0}
    if "panoptic" in name:
        entry["sem_seg"] = torch.randint(NUM_STUFF, size, generator=random)
    return entry


def ellipse(box: Tensor) -> list[Tensor]:
    """Return the polygon of the ellipse inside a box."""
    angle = torch.arange(POINTS, dtype=torch.float64) * (2 * math.pi / POINTS)
    circle = torch.stack([angle.cos(), angle.sin()], dim=1)  # (POINTS, 2)
    return [((box[:2] + box[2:]) / 2 + circle * (box[2:] - box[:2]) / 2).flatten()]


def measure(name: str, training: str, count: int, size: tuple[int, int]) -> tuple[float, float, float]:
    """Return the memory of this process in GB before a training step, its peak in the step, and the seconds it took."""
    torch.manual_seed(0)
    settings = [f"model={name}", "size=standard", "backbone=r50", "norm=FrozenBN", "freeze_at=2"]
    settings += [
        f"num_classes={NUM_CLASSES}",
        f"num_keypoints={NUM_KEYPOINTS}",
        f"num_stuff_classes={NUM_STUFF}",
    ]
    model = hydet.instantiate(hydet.compose(*settings).model).train()
    if training == "fast":
        optimize_training(model)
    entry = make_entry(count, size, name)
    before, started = resident(), time.monotonic()
    sum(model([entry]).values()).backward()
    return before, peak(), time.monotonic() - started


def resident() -> float:
    """Return the memory of this process in GB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 1e9


def peak() -> float:
    """Return the largest memory that this process has had, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def format_table(rows: list[tuple[str, str, int, float, float, float]], size: tuple[int, int]) -> str:
    """Return the Markdown report of rows of model, training, objects, two memories in GB and seconds."""
    lines = [
        "# Peak memory of a training step with many objects",
        "",
        f"{datetime.datetime.now(datetime.UTC).date()}, {device_name('cpu')}, {torch.get_num_threads()} threads, "
        f"{platform.system()}, Python {platform.python_version()}, torch {torch.__version__}.",
        f"One float32 image of {size[0]} x {size[1]}, {NUM_CLASSES} classes, forward and backward pass in a new process. "
        f"The limit for 2,000 objects is {LIMIT} GB on top of the memory before the step.",
        "",
        "Command: `python benchmarks/training_memory.py`",
        "",
        "| model | training | objects | before the step (GB) | peak (GB) | step (GB) | below the limit | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for model, training, count, before, highest, seconds in rows:
        step = highest - before
        verdict = "yes" if step < LIMIT else "no"
        lines.append(
            f"| {model} | {training} | {count} | {before:.2f} | {highest:.2f} | {step:.2f} | {verdict} | {seconds:.1f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the table, and write it to a file on request."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS), help="files in conf/model")
    parser.add_argument("--training", choices=("exact", "fast"), nargs="+", default=["exact", "fast"])
    parser.add_argument("--objects", type=int, nargs="+", default=[8, 2000])
    parser.add_argument("--size", type=int, nargs=2, default=[800, 1344], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, help="Markdown file to write")
    parser.add_argument(
        "--measure", action="store_true", help="measure in this process and print the numbers"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    height, width = arguments.size
    if arguments.measure:
        model, training, count = arguments.models[0], arguments.training[0], arguments.objects[0]
        print(*measure(model, training, count, (height, width)))
        return
    rows = []
    for model in arguments.models:
        for training in arguments.training:
            for count in arguments.objects:
                # The peak of a process never falls, so each measurement has its own. A failure ends the script.
                command = [sys.executable, __file__, "--measure", "--models", model, "--training", training]
                command += ["--objects", str(count), "--threads", str(arguments.threads)]
                command += ["--size", str(height), str(width)]
                output = subprocess.run(
                    command, check=True, stdout=subprocess.PIPE, text=True, encoding="utf-8"
                ).stdout
                before, highest, seconds = map(float, output.split())
                rows.append((model, training, count, before, highest, seconds))
    table = format_table(rows, (height, width))
    print(table)
    if arguments.output:
        arguments.output.write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
