"""Every architecture learns the generated pictures from scratch, through the command that users type.

``python benchmarks/learn_shapes.py`` trains one after the other on the CPU, each with a narrow backbone and for minutes,
prints a table and writes ``benchmarks/results/learn_shapes_<date>.md``; it fails if one stays below its floor.
``--only retinanet fcos`` trains those alone. A row is written as soon as it is known; with ``--folder runs/learn`` runs
are kept, and what has ended there is not trained again.
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
from dataclasses import dataclass, field
from pathlib import Path

import torch

from kernels import device_name

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
MINUTES = 8.0


@dataclass(frozen=True)
class Run:
    """One architecture.

    Args:
        model: of ``conf/model/``.
        floors: metric -> what it must reach.
        overrides: what else is typed.
        proposals_of: name of the run whose proposals it takes.
    """

    model: str
    floors: Mapping[str, float]
    overrides: Sequence[str] = field(default_factory=tuple)
    proposals_of: str | None = None


# Small pictures leave a plain transformer 6 x 6 patches of 16 pixels: it gets larger ones, and a lower floor.
VIT = ["backbone.embed_dim=96", "backbone.depth=4", "backbone.num_heads=4", "backbone.img_size=96"]
VIT += ["backbone.window_size=0", "backbone.window_block_indexes=[]", "backbone.drop_path_rate=0.0"]

RUNS = {
    "faster_rcnn_fpn": Run("faster_rcnn_fpn", {"box/AP": 0.40}),
    "mask_rcnn_fpn": Run("mask_rcnn_fpn", {"box/AP": 0.40, "mask/AP": 0.40}),
    "keypoint_rcnn_fpn": Run("keypoint_rcnn_fpn", {"box/AP": 0.40, "keypoints/AP": 0.30}),
    "cascade_mask_rcnn_fpn": Run("cascade_mask_rcnn_fpn", {"box/AP": 0.40, "mask/AP": 0.35}),
    "mask_rcnn_c4": Run("mask_rcnn_c4", {"box/AP": 0.30, "mask/AP": 0.30}, ["backbone=r50_slim"]),
    "mask_rcnn_dc5": Run("mask_rcnn_dc5", {"box/AP": 0.30, "mask/AP": 0.30}, ["backbone=r50_slim"]),
    "retinanet": Run("retinanet", {"box/AP": 0.40}),
    "fcos": Run("fcos", {"box/AP": 0.40}),
    "panoptic_fpn": Run("panoptic_fpn", {"panoptic/PQ": 0.40, "semantic/mIoU": 0.40}),
    "semantic_fpn": Run("semantic_fpn", {"semantic/mIoU": 0.50}),
    "rpn_fpn": Run("rpn_fpn", {"proposals/AR100": 0.50}),
    "fast_rcnn_fpn": Run("fast_rcnn_fpn", {"box/AP": 0.40}, proposals_of="rpn_fpn"),
    "rotated_faster_rcnn_fpn": Run(
        "rotated_faster_rcnn_fpn", {"rotated/AP50": 0.50}, ["data=shapes_rotated"]
    ),
    "mask_rcnn_vitdet": Run("mask_rcnn_vitdet", {"box/AP": 0.20, "mask/AP": 0.20}, VIT),
}


def train(name: str, run: Run, folder: Path, extra: Sequence[str]) -> dict[str, float]:
    """Train one, unless it was; gives its metrics."""
    file = folder / name / "metrics.json"
    if file.exists():
        return json.loads(file.read_text())
    overrides = [f"model={run.model}", *run.overrides, *extra]
    if run.proposals_of is not None:
        for split in ("train", "val"):
            out = folder / f"proposals_{split}"
            if not (out / "proposals.npz").exists():
                call(
                    "src.evaluate",
                    f"checkpoint={folder / run.proposals_of}",
                    f"split={split}",
                    f"output_dir={out}",
                )
            overrides.append(f"proposals.{split}={out / 'proposals.npz'}")
    call("src.train", *overrides, f"output_dir={folder / name}")
    return json.loads(file.read_text())


def call(module: str, *arguments: str) -> None:
    """Run a command of this checkout; its output goes to the terminal."""
    print(f"$ python -m {module} {' '.join(arguments)}", flush=True)
    # A GPU would be faster, but what is claimed here is about CPUs.
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([sys.executable, "-m", module, *arguments], cwd=ROOT, env=environment, check=True)


def row(name: str, run: Run, metrics: Mapping[str, float]) -> str:
    """One line of the table."""
    typed = " ".join(
        [f"model={run.model}", *run.overrides, *(["proposals of rpn_fpn"] if run.proposals_of else [])]
    )
    found = ", ".join(f"{key} {metrics[key]:.3f}" for key in run.floors)
    floors = ", ".join(f"{floor:.2f}" for floor in run.floors.values())
    verdict = "yes" if above(run, metrics) else "**no**"
    return f"| {name} | `{typed}` | {metrics['seconds'] / 60:.1f} | {found} | {floors} | {verdict} |"


def above(run: Run, metrics: Mapping[str, float]) -> bool:
    """Whether every floor was reached in time."""
    return all(metrics.get(key, 0.0) >= floor for key, floor in run.floors.items())


def write(rows: Sequence[str], file: Path, extra: Sequence[str]) -> None:
    """The table so far."""
    import hydet

    command = " ".join(["python benchmarks/learn_shapes.py", *extra])
    lines = [
        f"# Learning the generated pictures from scratch, {datetime.date.today().isoformat()}",
        "",
        f"`{command}` on {device_name('cpu')}, {os.cpu_count()} cores; hydet {getattr(hydet, '__version__', '')}, torch "
        f"{torch.__version__}, Python {platform.python_version()}.",
        "2,000 pictures of 96 x 96 pixels to train on, 200 others to measure on. Minutes are wall time of the command "
        f"(model, training, evaluations); more than {MINUTES:.0f} would be too many for a machine with nothing else to do.",
        "",
        "| architecture | `python -m src.train` ... | minutes | result | floor | reached |",
        "| --- | --- | --- | --- | --- | --- |",
        *rows,
        "",
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines))


def main() -> int:
    """Train all; 1 if one stayed below its floor."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS), help="train these alone")
    parser.add_argument("--folder", type=Path, help="where runs go; by default a temporary folder")
    parser.add_argument(
        "overrides", nargs="*", help="typed after every command, such as trainer.max_steps=100"
    )
    options = parser.parse_args()
    names = [name for name in RUNS if name in options.only]
    for name in names:
        needed = RUNS[name].proposals_of
        if (
            needed is not None
            and needed not in names
            and not (options.folder and (options.folder / needed).exists())
        ):
            parser.error(f"{name} takes the proposals of {needed}: train that too")
    today = datetime.date.today().isoformat()
    file = RESULTS / f"learn_shapes_{today}.md"
    rows, failed = [], []
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        for name in names:
            metrics = train(name, RUNS[name], folder, options.overrides)
            rows.append(row(name, RUNS[name], metrics))
            failed += [] if above(RUNS[name], metrics) else [name]
            write(rows, file, options.overrides)
            print(rows[-1], flush=True)
    print(file.read_text())
    if failed:
        print(f"below the floor: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
