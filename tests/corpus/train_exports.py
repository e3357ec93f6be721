"""Train, evaluate and predict on COCO files of other tools: ``python tests/corpus/train_exports.py FOLDER [CASE ...]``.

``FOLDER`` holds one folder per case, with ``a.json`` and ``images``. Each command must end with the exit status 0, or in one
line that names a cause; a traceback, another exception or a result without its data report is a failure. Prints one line per
case and exits with 1 if one fails.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from hydet.cli import evaluate, predict, train

SETTINGS = [
    "backbone=r18_slim", "size=slim", "augment=flip", "num_workers=0", "batch_size=2", "trainer.max_steps=2",
    "preset=none", "trainer.device=cpu", "evaluation.pictures=0", "logger=console",
]  # fmt: skip


def run(main: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> tuple[int, str]:
    """Run a command and return its exit status and its last line."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(arguments)
    lines = (err.getvalue().strip() or out.getvalue().strip()).splitlines()
    if status != 0 and (len(lines) != 1 or not lines[0].startswith("error: ")):
        raise AssertionError(f"more than one line of error: {lines[-3:]}")
    return status, lines[-1] if lines else ""


def settings_of(case: Path) -> list[str]:
    """Return the data and the model of a case; files with keypoints train a keypoint model."""
    text = (case / "a.json").read_bytes()
    keypoints = b'"keypoints"' in text
    images = case / "images" if (case / "images").is_dir() else case
    data = "coco_keypoint" if keypoints else "coco_instance"
    model = "keypoint_rcnn_fpn" if keypoints else "faster_rcnn_fpn"
    val = case / "b.json"
    return [
        f"data={data}", f"model={model}", "data.class_names=null",
        *(["data.keypoint_names=null"] if keypoints else []),
        f"data.train.json={case}/a.json", f"data.train.images={images}",
        f"data.val.json={val if val.exists() else case / 'a.json'}", f"data.val.images={images}",
    ]  # fmt: skip


def check(case: Path) -> str:
    """Run the commands on a case, and return its result in one line."""
    with tempfile.TemporaryDirectory() as folder:
        settings = [*SETTINGS, *settings_of(case)]
        status, line = run(train.main, [*settings, f"output_dir={folder}/train"])
        if status != 0:
            return line
        status, line = run(
            evaluate.main, [f"checkpoint={folder}/train", f"output_dir={folder}/eval", "device=cpu"]
        )
        if status != 0:
            return line
        metrics = json.loads(Path(folder, "eval", "metrics.json").read_text(encoding="utf-8"))
        images = case / "images" if (case / "images").is_dir() else case
        status, line = run(
            predict.main,
            [f"checkpoint={folder}/train", f"input={images}", f"output_dir={folder}/predict", "device=cpu"],
        )
        return f"trained; {sum(isinstance(v, float) for v in metrics.values())} metrics; predict: {status} {line}"


def main() -> int:
    torch.set_num_threads(1)
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    cases = sorted(path.parent for path in folder.glob("*/a.json"))
    if not cases:
        print(f"{folder} has no folders with a.json", file=sys.stderr)
        return 1
    failures = 0
    for case in cases:
        if names and case.name not in names:
            continue
        try:
            result = check(case)
        except Exception as error:  # every exception of a command is a failure of this check
            result, failures = f"FAILED: {type(error).__name__}: {error}", failures + 1
        print(f"{case.name}: {result}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
