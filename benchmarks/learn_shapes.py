"""Train every architecture on the generated images from scratch, with the ``src.train`` command.

``python benchmarks/learn_shapes.py`` trains the architectures one after the other on the CPU, each with a narrow
backbone and for a few minutes. It prints a table, writes ``benchmarks/results/learn_shapes_<date>.md`` and fails if an
architecture stays below its floor. ``--only retinanet fcos`` selects architectures. Rows are written as runs finish;
``--folder runs/learn`` keeps the runs, and a second call skips the finished ones. ``--jobs 2`` trains two at a time, each
on half of the cores. ``--output FILE training=fast`` writes the table of the fast form to another file.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

import torch
from machine import device_name

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
MINUTES = 8.0


@dataclass(frozen=True)
class Run:
    """One architecture.

    Args:
        model: option of ``conf/model/``.
        floors: minimum value per metric.
        overrides: further command-line overrides.
        proposals_of: name of the run that provides the proposals.
    """

    model: str
    floors: Mapping[str, float]
    overrides: Sequence[str] = field(default_factory=tuple)
    proposals_of: str | None = None


def steps(count: int, *, lr: float | None = None) -> list[str]:
    """Return overrides for ``count`` steps instead of the preset's 700, with an evaluation after the last step."""
    rate = [] if lr is None else [f"optimizer.lr={lr}"]
    return [f"trainer.max_steps={count}", f"evaluation.every={count}", *rate]


# For architectures that pass their floor in fewer than 700 steps.
SHORT, MIDDLE = "trainer.max_steps=300", "trainer.max_steps=500"
# A dense detector trains on few cells per object, all on one level, so it needs more images and a larger rate.
LONG = steps(1200, lr=0.005)
RUNS = {
    "faster_rcnn_fpn": Run("faster_rcnn_fpn", {"box/AP": 0.40}),
    "mask_rcnn_fpn": Run("mask_rcnn_fpn", {"box/AP": 0.40, "mask/AP": 0.40}),
    "keypoint_rcnn_fpn": Run("keypoint_rcnn_fpn", {"box/AP": 0.40, "keypoints/AP": 0.30}),
    "retinanet": Run(
        "retinanet", {"box/AP": 0.40}, ["+model.head.norm=GN", "+model.box_reg_loss_type=giou", *LONG]
    ),
    "fcos": Run("fcos", {"box/AP": 0.40}, LONG),
    "panoptic_fpn": Run(
        "panoptic_fpn",
        {"panoptic/PQ": 0.40, "semantic/mIoU": 0.40},
        # Masks take most of a step, and 64 regions are more than an image with four objects needs.
        [
            "+model.combine_instances_score_thresh=0.35",
            "size.regions_per_image=32",
            *steps(1150, lr=0.005),
        ],
    ),
    "rotated_faster_rcnn_fpn": Run(
        "rotated_faster_rcnn_fpn",
        {"rotated/AP50": 0.50},
        ["data=shapes_rotated", *steps(800, lr=0.005)],
    ),
    "rpn_fpn": Run("rpn_fpn", {"proposals/AR100": 0.50}, [SHORT]),
    "semantic_fpn": Run("semantic_fpn", {"semantic/mIoU": 0.50}, steps(1000)),
    "fast_rcnn_fpn": Run("fast_rcnn_fpn", {"box/AP": 0.30}, [MIDDLE], proposals_of="rpn_fpn"),
    "cascade_mask_rcnn_fpn": Run("cascade_mask_rcnn_fpn", {"box/AP": 0.30, "mask/AP": 0.30}, [MIDDLE]),
    # One map of 6 x 6 cells holds all objects of an image, and a whole backbone stage runs on each region.
    "mask_rcnn_c4": Run(
        "mask_rcnn_c4", {"box/AP": 0.30, "mask/AP": 0.30}, ["size.regions_per_image=16", *steps(1000)]
    ),
    # Published with ResNet-50, so the backbone has its bottleneck blocks, but fewer channels.
    "mask_rcnn_dc5": Run(
        "mask_rcnn_dc5",
        {"box/AP": 0.10, "mask/AP": 0.10},
        ["backbone=r50_slim", "size.regions_per_image=16", *steps(800)],
    ),
    # Small images give a plain transformer 6 x 6 patches of 16 pixels, and it is published with pretrained weights.
    "mask_rcnn_vitdet": Run(
        "mask_rcnn_vitdet",
        {"box/AP": 0.10, "mask/AP": 0.10},
        ["backbone=vitdet_slim", *steps(600, lr=0.0008)],
    ),
}


def train(name: str, folder: Path, extra: Sequence[str], threads: int) -> dict[str, float]:
    """Train an architecture unless its run is finished; return its metrics and the number of threads."""
    finished = folder / name / "threads.txt"
    if not finished.exists():
        call("src.train", arguments_of(name, folder, extra, threads), threads, folder / f"{name}.log")
        finished.write_text(str(threads), encoding="utf-8")
    metrics = json.loads((folder / name / "metrics.json").read_text(encoding="utf-8"))
    return {**metrics, "threads": int(finished.read_text(encoding="utf-8"))}


def arguments_of(name: str, folder: Path, extra: Sequence[str], threads: int) -> list[str]:
    """Return the arguments of ``src.train``; writes the proposals that the run needs."""
    run = RUNS[name]
    overrides = [f"model={run.model}", *run.overrides, *extra]
    if run.proposals_of is not None:
        for split in ("train", "val"):
            out = folder / f"proposals_{split}"
            if not (out / "proposals.npz").exists():
                source = [f"checkpoint={folder / run.proposals_of}", f"split={split}", f"output_dir={out}"]
                call("src.evaluate", source, threads, folder / f"{name}.log")
            overrides.append(f"proposals.{split}={out / 'proposals.npz'}")
    return [*overrides, f"output_dir={folder / name}"]


def call(module: str, arguments: Sequence[str], threads: int, log: Path) -> None:
    """Run a command of this checkout and append its output to ``log``."""
    print(f"$ python -m {module} {' '.join(arguments)}   # {log}", flush=True)
    # The table is about CPUs, so a GPU is hidden.
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": str(threads)}
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            env=environment,
            stdout=file,
            stderr=file,
            check=True,
        )


def row(name: str, run: Run, metrics: Mapping[str, float]) -> str:
    """Return one line of the table."""
    arguments = [f"model={run.model}", *run.overrides]
    arguments += [f"proposals.{split}=..." for split in ("train", "val") if run.proposals_of is not None]
    results = ", ".join(f"{key} {metrics[key]:.3f}" for key in run.floors)
    floors = ", ".join(f"{floor:.2f}" for floor in run.floors.values())
    verdict = "yes" if above(run, metrics) else "**no**"
    return (
        f"| {name} | `{' '.join(arguments)}` | {metrics['threads']} | {metrics['seconds'] / 60:.1f} "
        f"| {results} | {floors} | {verdict} |"
    )


def above(run: Run, metrics: Mapping[str, float]) -> bool:
    """Return True if every metric reaches its floor."""
    return all(metrics.get(key, 0.0) >= floor for key, floor in run.floors.items())


def write(rows: Sequence[str], file: Path, extra: Sequence[str]) -> None:
    """Write the table of the finished runs."""
    import hydet

    command = " ".join(["python benchmarks/learn_shapes.py", *extra])
    lines = [
        f"# Learning the generated images from scratch, {datetime.date.today().isoformat()}",
        "",
        f"`{command}` on {device_name('cpu')}, {os.cpu_count()} cores; hydet {getattr(hydet, '__version__', '')}, torch "
        f"{torch.__version__}, Python {platform.python_version()}.",
        "2,000 training images of 96 x 96 pixels, 200 validation images. Minutes are wall time of the command (model, "
        f"training, evaluation); the target is at most {MINUTES:.0f} on an idle machine.",
        "",
        "| architecture | `python -m src.train` ... | threads | minutes | result | floor | reached |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *rows,
        "",
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines), encoding="utf-8")


def main() -> int:
    """Train the selected architectures; return 1 if one stays below its floor."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS), help="architectures to train")
    parser.add_argument(
        "--folder", type=Path, help="folder that keeps the runs; a temporary folder by default"
    )
    parser.add_argument(
        "--jobs", type=int, default=1, help="number of runs at a time, each on its share of the cores"
    )
    parser.add_argument(
        "--output", type=Path, help="the table; by default benchmarks/results/learn_shapes_<date>.md"
    )
    parser.add_argument("overrides", nargs="*", help="overrides for every run, such as trainer.max_steps=100")
    options = parser.parse_args()
    # Runs that need proposals come last, so that they never block the run that provides the proposals.
    names = sorted((n for n in RUNS if n in options.only), key=lambda n: RUNS[n].proposals_of is not None)
    for name in names:
        needed = RUNS[name].proposals_of
        if needed is not None and needed not in names:
            parser.error(f"{name} needs the proposals of {needed}; add it to --only")
    file = options.output or RESULTS / f"learn_shapes_{datetime.date.today().isoformat()}.md"
    rows: dict[str, str] = {}
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(options.jobs) as pool:
        folder = (options.folder or Path(temporary)).resolve()
        threads = max(1, (os.cpu_count() or 1) // options.jobs)
        running: dict[str, Future[dict[str, float]]] = {}

        def start(name: str) -> dict[str, float]:
            needed = RUNS[name].proposals_of
            if needed is not None:
                running[needed].result()
            return train(name, folder, options.overrides, threads)

        for name in names:
            running[name] = pool.submit(start, name)
        for future in as_completed(running.values()):
            name = next(n for n, f in running.items() if f is future)
            try:
                metrics = future.result()
            except subprocess.CalledProcessError as error:
                print(f"{name}: {error}", file=sys.stderr)
                failed.append(name)
                continue
            rows[name] = row(name, RUNS[name], metrics)
            failed += [] if above(RUNS[name], metrics) else [name]
            write([rows[n] for n in RUNS if n in rows], file, options.overrides)
            print(rows[name], flush=True)
    if failed:
        print(f"below the floor: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
